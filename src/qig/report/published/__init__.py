"""Numbers that papers print. Nothing here was measured by this project; README.md has the columns and known errors."""

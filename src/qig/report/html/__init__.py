"""The static report: everything in a results folder on one page that needs nothing but itself and a browser."""

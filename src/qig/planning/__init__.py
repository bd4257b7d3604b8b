"""What a calibration will take, measured on a rehearsal: two blocks of the model's true shape with random weights."""

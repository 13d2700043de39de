"""What is done with a model's answers between the model and the prediction. Used by `tasks/`; knows no task."""

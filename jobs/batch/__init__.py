"""What a person does with a trained model: pictures in, results out."""

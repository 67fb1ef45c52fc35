"""What a training job is made of: backbone, features, head, fine-tuning, evaluation, export, checkpoint."""

"""The parts of a training job: backbone, features, head, fine-tuning, evaluation, export and checkpoints."""

"""Twofold in an AWS account: stacks, images, and training jobs on AWS machines."""

"""AWS: S3 and SQS behind classes of our own, and their failures as decisions."""

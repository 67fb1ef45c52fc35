"""AWS behind a few classes: storage, queues and notifications, with failures as decisions."""

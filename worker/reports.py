"""What stands in a part's metadata: the digest of the request it answers, and the report on it."""

from typing import Final

#: User metadata of the part, at most 2 KB of it: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
DIGEST: Final = "request-digest"
REPORT: Final = "part-report"

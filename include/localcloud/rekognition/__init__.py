"""A stand-in for Amazon Rekognition's moderation operations, true to the client's eye."""

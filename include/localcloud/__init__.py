"""A cloud for one machine: SeaweedFS as S3 and a stand-in for Amazon Rekognition, both on 127.0.0.1."""

"""The synchronous engine: manifests judged image by image, with the files that a bulk job would leave."""

"""Pictures, pages and BVH files of clips."""

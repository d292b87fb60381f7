"""A detector at work on image files: scoring them, as rows or as a job with a ledger, and encoding them."""

from anomaly_ae.folder.encoding import Encoded, check_output, encode_folder, score_images
from anomaly_ae.folder.job import Job, Scores, score_job
from anomaly_ae.folder.ledger import Changes
from anomaly_ae.folder.rows import FolderScores, score_folder

__all__ = [
    "Changes",
    "Encoded",
    "FolderScores",
    "Job",
    "Scores",
    "check_output",
    "encode_folder",
    "score_folder",
    "score_images",
    "score_job",
]

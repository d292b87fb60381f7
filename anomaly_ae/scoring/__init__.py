"""A detector at work on image files: scoring them, as rows or as a job with a ledger, and encoding them."""

from anomaly_ae.scoring.encode import Encoded, Scored, check_output, encode_folder, score_images
from anomaly_ae.scoring.job import Engine, Job, Scores, score_job, score_locally
from anomaly_ae.scoring.ledger import Changes
from anomaly_ae.scoring.overlays import check_overlays, write_overlays
from anomaly_ae.scoring.previews import load_previews
from anomaly_ae.scoring.rows import FolderScores, score_folder

__all__ = [
    "Changes",
    "Encoded",
    "Engine",
    "FolderScores",
    "Job",
    "Scored",
    "Scores",
    "check_output",
    "check_overlays",
    "encode_folder",
    "load_previews",
    "score_folder",
    "score_images",
    "score_job",
    "score_locally",
    "write_overlays",
]

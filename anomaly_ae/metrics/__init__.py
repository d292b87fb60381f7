"""How well scores and maps tell anomalies from normal images."""

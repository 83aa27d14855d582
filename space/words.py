"""What the page of the Space calls things: data."""

ROLES = {
    "reference": "Reference report",
    "prediction": "Candidate report",
    "id": "Id",
    "age": "Age",
    "sex": "Sex",
    "indication": "Indication",
}

HEADING = """# CRIMSON
How good is an AI-written chest X-ray report? It is compared with a radiologist’s report, finding by finding.
**Research use only, not for clinical decisions.**"""

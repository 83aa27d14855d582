"""Words that the Space's page uses: data."""

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

NEEDS_ONE = """One report pair a row. Needed: a column of **reference reports** and one of **candidate reports**; id, age, sex and
indication are read if they are there, and columns may have other names.

```csv
id,reference,prediction,age
1,"Small left pleural effusion.","Moderate left pleural effusion.",58
2,"Clear lungs.","Clear lungs.",31
```

"""

NEEDS_SEVERAL = """Two to {most} systems over the same references. Needed: a column of **reference reports**, and **a column of candidate
reports for each system**; or a file for each system, joined by an id column or in the same order.

```csv
id,reference,system_a,system_b
1,"Small left pleural effusion.","Small left effusion.","Moderate left pleural effusion."
2,"Clear lungs.","Clear lungs.","Right lower lobe consolidation."
```

"""

"""Report pairs and tiny judges that tests of the hf judge share."""

import pytest

from crimson_core import PatientContext, ReportPair
from crimson_core.judges.engines.hf import hf_judge
from crimson_core.judges.engines.local import grammar

PAIRS = [
    ReportPair(
        "Small left pleural effusion.", "Moderate right pleural effusion.", PatientContext("65", "F", "dyspnea")
    ),
    ReportPair("No acute cardiopulmonary abnormality.", "Heart size is normal. Lungs are clear."),
    ReportPair("Right lower lobe pneumonia. Mild cardiomegaly.", "Opacity at the right base.", PatientContext("071Y")),
    ReportPair("", "5 mm nodule in the left upper lobe."),
    ReportPair("Large right pneumothorax with mediastinal shift to the left.\nNo effusion.", "Normal chest."),
    ReportPair("Endotracheal tube 4 cm above the carina.", "Endotracheal tube in the right main bronchus."),
    ReportPair("Bibasilar atelectasis.  Old rib fractures on the left.", 'Bibasilar atelectasis; "old" fractures.'),
    ReportPair("Interstitial edema with Kerley B lines, worse than before.", ""),
    ReportPair(
        "Hiatal hernia. Degenerative changes of the spine.", "Hiatal hernia. Normal spine. Aortic calcification."
    ),
]
TIGHT = {"max_findings": 1, "max_text": 12}


def run(judge, pairs):
    """Judgements in the order of `pairs`, each index exactly once."""
    got = list(judge.judge(pairs))
    assert sorted(index for index, _ in got) == list(range(len(pairs)))
    return [judgement for _, judgement in sorted(got, key=lambda item: item[0])]


def texts(judge, pairs):
    return [judgement.raw_output for judgement in run(judge, pairs)]


def tight_judge(folder, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar, "_MAX_WHITESPACE", 1)  # a random model loves white space
        return hf_judge(str(folder), dtype="float32", max_new_tokens=600, **TIGHT, **options)

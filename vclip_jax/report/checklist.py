"""The items of two reporting guidelines, filled in as far as the files of a run can.

Sources: TRIPOD+AI, G. S. Collins et al., BMJ 385 (2024) e078378; CLAIM, J. Mongan, L. Moy and C. E.
Kahn, Radiology: Artificial Intelligence 2 (2020) e200029. The items are named here in a few words
of our own; the guidelines say what each asks for.
"""

from collections.abc import Mapping
from typing import Any, Final

from vclip_jax.report.figures import is_number
from vclip_jax.report.reader import Run

_TRIPOD: Final = (
    ("1", "title", ""),
    ("2", "abstract", ""),
    ("3a", "medical context", ""),
    ("3b", "people and users that the model is for", ""),
    ("3c", "known inequalities between groups", ""),
    ("4", "objectives", ""),
    ("5a", "sources of data", "data"),
    ("5b", "dates of data", ""),
    ("6a", "setting and centres", ""),
    ("6b", "eligibility", ""),
    ("6c", "treatments", ""),
    ("7", "preparation of data", "preparation"),
    ("8a", "outcome, and how it was assessed", "classes"),
    ("8b", "qualification of assessors", ""),
    ("8c", "blinding of assessors", ""),
    ("9a", "choice of predictors", "predictors"),
    ("9b", "definition of predictors", "predictors"),
    ("9c", "subjective predictors", ""),
    ("10", "sample size", "sizes"),
    ("11", "missing data", "flow"),
    ("12a", "use of the data, partitions", "partitions"),
    ("12b", "handling of predictors", "preparation"),
    ("12c", "type of model, building, tuning", "model"),
    ("12d", "differences between clusters", "subgroups"),
    ("12e", "measures of performance", "measures"),
    ("12f", "updating, such as recalibration", "calibration"),
    ("12g", "computation of predictions", "predictions"),
    ("13", "class imbalance", "imbalance"),
    ("14", "fairness", "subgroups"),
    ("15", "output and thresholds", "thresholds"),
    ("16", "differences between training and evaluation data", ""),
    ("17", "ethical approval", ""),
    ("18a", "funding", ""),
    ("18b", "conflicts of interest", ""),
    ("18c", "protocol", ""),
    ("18d", "registration", ""),
    ("18e", "availability of data", "data"),
    ("18f", "availability of code", "code"),
    ("19", "involvement of patients and public", ""),
    ("20a", "flow of participants", "flow"),
    ("20b", "characteristics of participants", ""),
    ("20c", "comparison with the training data", ""),
    ("21", "participants and events in each analysis", "sizes"),
    ("22", "specification of the full model", "model"),
    ("23a", "performance with intervals, also by subgroup", "performance"),
    ("23b", "heterogeneity between clusters", "subgroups"),
    ("24", "results of updating", "calibration"),
    ("25", "interpretation", ""),
    ("26", "limitations", ""),
    ("27a", "handling of poor or missing input", "gate"),
    ("27b", "interaction with users, expertise", ""),
    ("27c", "next steps", ""),
)
_CLAIM: Final = (
    ("1", "title", ""),
    ("2", "abstract", ""),
    ("3", "background and role", ""),
    ("4", "objectives and hypotheses", ""),
    ("5", "prospective or retrospective", ""),
    ("6", "goal of the study", ""),
    ("7", "data sources", "data"),
    ("8", "eligibility", ""),
    ("9", "preprocessing", "preparation"),
    ("10", "selection of subsets", "partitions"),
    ("11", "definitions of data elements", "classes"),
    ("12", "de-identification", ""),
    ("13", "missing data", "flow"),
    ("14", "definition of the ground truth", "classes"),
    ("15", "reason for the reference standard", ""),
    ("16", "source of annotations", ""),
    ("17", "annotation tools", ""),
    ("18", "variability of raters", ""),
    ("19", "sample size", "sizes"),
    ("20", "partitions", "partitions"),
    ("21", "level at which partitions are disjoint", "disjoint"),
    ("22", "model", "model"),
    ("23", "software libraries", "code"),
    ("24", "initial parameters", "start"),
    ("25", "training: augmentation, hyperparameters, number of models", "training"),
    ("26", "choice of the final model", "final"),
    ("27", "ensembles", "ensemble"),
    ("28", "metrics", "measures"),
    ("29", "significance and uncertainty", "measures"),
    ("30", "robustness and sensitivity", "wording"),
    ("31", "explanation of answers", "heat"),
    ("32", "external test", "external"),
    ("33", "flow of cases", "flow"),
    ("34", "demographics by partition", ""),
    ("35", "performance on all partitions", "performance"),
    ("36", "accuracy with precision", "performance"),
    ("37", "failure analysis", "failures"),
    ("38", "limitations", ""),
    ("39", "implications for practice", ""),
    ("40", "registration", ""),
    ("41", "protocol, data and code", "code"),
    ("42", "funding", ""),
)


def checklist(run: Run) -> str:
    """Return both checklists as Markdown: each item filled in, or left to the authors."""
    known = answers(run)
    lines = [
        "# Reporting checklists",
        "",
        "Filled in from the files of the run; all other items are for the authors. Check every",
        "line against the guideline itself before you submit it.",
    ]
    for title, items in (("TRIPOD+AI (2024)", _TRIPOD), ("CLAIM (2020)", _CLAIM)):
        done = sum(topic in known for _, _, topic in items)
        lines += ["", f"## {title}", "", f"{done} of {len(items)} items have an entry.", ""]
        lines += ["| item | about | entry |", "|---|---|---|"]
        lines += [
            f"| {number} | {about} | {_cell(known.get(topic, 'for the authors'))} |"
            for number, about, topic in items
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def answers(run: Run) -> dict[str, str]:
    """Return topic -> a sentence, for the topics that the run's files answer."""
    found: dict[str, str] = {}
    config, results = run.config, run.zero_shot
    data, model = _section(config, "data"), _section(config, "model")
    optimizer = _section(config, "optimizer")
    sets = list(dict.fromkeys(str(one.get("dataset")) for one in results.values()))
    trained = _trained_on(data)
    if trained:
        said = ", ".join(trained)
        found["data"] = f"Training: {said}. Evaluation: {', '.join(sets) or 'none'}."
        found["partitions"] = (
            f"Training split {data.get('train_split')}, held-back split "
            f"{data.get('validation_split')}; zero_shot.json names the dataset of each evaluation."
        )
    if data.get("image_size"):
        contrast = "enhanced" if data.get("enhance") else "as it is"
        found["preparation"] = (
            f"Photographs are made square ({data.get('fit')}) at {data['image_size']} pixels, "
            f"decoding {data.get('decode')}, local contrast {contrast}."
        )
        found["predictors"] = "The photograph alone; no clinical data."
    if model:
        towers = f"{model.get('vision_kind')} and {model.get('text_kind')}"
        found["model"] = (
            f"Two towers ({towers}) with a joint space of {model.get('embed_dim')} numbers; all "
            "settings in config.json."
        )
    if config.get("total_steps"):
        found["training"] = (
            f"{config['total_steps']:,} steps of {config.get('global_batch_size')} pairs, "
            f"{optimizer.get('kind')} at {optimizer.get('learning_rate')}, seed "
            f"{config.get('seed')}; one model."
        )
        kept = config.get("keep_best")
        found["final"] = f"The best checkpoint by {kept}." if kept else "The last step."
        found["ensemble"] = "None."
        found["start"] = (
            f"From {run.start.get('source')}." if run.start else "Random initialisation."
        )
    if config.get("heat_maps") is True:
        found["heat"] = "Heat maps of example photographs in report.html."
    if commit := run.machine.get("git_commit"):
        where = "environment.json" if run.environment else "scored.json"
        found["code"] = f"vclip_jax, commit {str(commit)[:12]}; versions in {where}."
    if run.scored:
        found["start"] = (
            f"The model {run.scored.get('model')}, SHA-256 {run.scored.get('sha256')}: see there "
            "for its training."
        )
    if results:
        found |= _of_results(results)
    if trained and results:
        own = [name for name, one in results.items() if one.get("dataset") in trained]
        found["external"] = (
            f"{len(results) - len(own)} evaluations are on datasets that were not trained on"
            + (f"; {', '.join(own)} on a split of the training dataset." if own else ".")
        )
    return found


def _trained_on(data: Mapping[str, Any]) -> list[str]:
    """Return the datasets of a run's config: its only one, or those of its mixture."""
    if mixture := _section(data, "mixture"):
        return list(dict.fromkeys(str(name).partition(":")[0] for name in mixture))
    return [str(data["dataset"])] if data.get("dataset") else []


def _of_results(results: Mapping[str, Any]) -> dict[str, str]:
    sizes = "; ".join(f"{name}: {one['n']:,} images" for name, one in results.items())
    classes = "; ".join(
        f"{name}: {', '.join(map(str, one.get('classes') or ()))}" for name, one in results.items()
    )
    found = {
        "sizes": f"{sizes}.",
        "classes": f"{classes}.",
        "measures": "AUC, accuracy, balanced accuracy, kappa, F1, calibration error, log-loss "
        "and Brier score; Wilson's interval for accuracy, bootstrap percentiles for the others.",
        "performance": "Tables zero-shot and NAME-classes.",
        "predictions": "Softmax of scaled cosines with the mean vectors of the prompts; all "
        "prompts are in zero_shot.json.",
        "imbalance": "Not corrected; balanced accuracy is reported, and the images of each class "
        "are in the tables NAME-classes.",
        "failures": "predictions/NAME.csv lists every answer; examples of wrong ones are in "
        "report.html.",
    }
    units = {
        name: one["bootstrap"]["unit"]
        for name, one in results.items()
        if isinstance(one.get("bootstrap"), Mapping) and "unit" in one["bootstrap"]
    }
    if units:
        words = "; ".join(f"{name}: {unit}s" for name, unit in units.items())
        found["measures"] += f" Drawn units: {words}."
        known = [name for name, unit in units.items() if unit == "patient"]
        found["disjoint"] = (
            f"Patients are known in {', '.join(known)}." if known else "Patients are not known."
        )
    flows = [_flow(name, one) for name, one in results.items() if _flow(name, one)]
    if flows:
        found["flow"] = " ".join(flows)
    if any(isinstance(one.get("operating_points"), Mapping) for one in results.values()):
        found["thresholds"] = "Tables NAME-thresholds, with the split that chose the thresholds."
    if any(one.get("subgroups") for one in results.values()):
        found["subgroups"] = "Tables NAME-by-FACT, with gaps, intervals and Holm's correction."
    if any(one.get("prompt_sensitivity") for one in results.values()):
        found["wording"] = "Repeated with other wordings of the prompts: see report.html."
    calibrated = [name for name, one in results.items() if one.get("calibration")]
    if calibrated:
        found["calibration"] = f"Temperature and offsets fitted for {', '.join(calibrated)}."
    refused = [
        f"{name}: {one['gate']['refused']}"
        for name, one in results.items()
        if isinstance(one.get("gate"), Mapping) and is_number(one["gate"].get("refused"))
    ]
    if refused:
        found["gate"] = f"A gate judges each photograph; refused: {'; '.join(refused)}."
    return found


def _flow(name: str, result: Mapping[str, Any]) -> str:
    """Return the flow of a dataset's photographs in a sentence, "" if it is not known."""
    flow = result.get("flow")
    if not isinstance(flow, Mapping):
        return ""
    words = [
        f"{flow[key]:,} {text}"
        for key, text in (
            ("listed", "listed in the dataset"),
            ("rejected", "rejected when it was built"),
            ("records", "in the scored split"),
            ("unlabelled", "without a label"),
            ("refused", "left out by the gate"),
            ("scored", "scored"),
        )
        if is_number(flow.get(key))
    ]
    return f"{name}: {', '.join(words)}." if words else ""


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}

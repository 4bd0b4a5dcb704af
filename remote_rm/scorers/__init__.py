"""The rewards that are built in, by name: each a function as a user would write it, and one line here."""

SCORERS: dict[str, str] = {
    "format": "remote_rm.scorers.shape:format_",
    "length": "remote_rm.scorers.shape:length",
    "overlong": "remote_rm.scorers.shape:overlong",
    "exact": "remote_rm.scorers.answers:exact",
    "number": "remote_rm.scorers.answers:number",
    "count": "remote_rm.scorers.answers:count",
    "choice": "remote_rm.scorers.answers:choice",
    "math": "remote_rm.scorers.answers:math",
    "iou": "remote_rm.scorers.grounding:iou",
    "point": "remote_rm.scorers.grounding:point",
    "correctness": "remote_rm.scorers.symbolic:correctness",
    "length_cost": "remote_rm.scorers.symbolic:length_cost",
    "unfinished": "remote_rm.scorers.symbolic:unfinished",
}

"""Read midc's event files back with TensorBoard's own reader.

usage: tensorboard_reader.py DIR          (see tests/tensorboard.sh; DIR holds what tensorboard_events.rs wrote)
       tensorboard_reader.py DIR RUN      DIR is of the one stage of a run that was resumed: nothing is missing or twice
"""

import glob
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader


def written():
    files = sorted(glob.glob(directory + "/events.out.tfevents.*"))
    assert len(files) == 2, files
    # The raw loader checks both checksums of each record and stops at the torn one.
    counts = [len(list(RawEventFileLoader(f).Load())) for f in files]
    assert counts == [1 + 1 + 7, 1 + 1 + 5 + 1], counts

    events = EventAccumulator(directory, purge_orphaned_data=True)
    events.Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    expected = {
        "train/loss", "train/lr", "train/grad_norm", "train/tokens_per_second", "train/batch_tokens",
        "train/context", "train/tokens", "loss/s.wéb", "mix_planned/s.wéb", "mix_planned/code",
        "mix_read/s.wéb", "mix_read/code", "reach/needle/32768",
    }
    assert scalars == expected, scalars ^ expected

    loss = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert loss == [(s, 10.0 - s if s < 4 else 20.0 - s) for s in range(9)], loss
    assert [e.value for e in events.Scalars("mix_read/s.wéb")] == [0.75] * 9
    assert [(e.step, e.value) for e in events.Scalars("reach/needle/32768")] == [(9, 0.875)]
    times = [e.wall_time for e in events.Scalars("train/loss")]
    assert times == sorted(times) and times[0] > 1.6e9

    metadata = events.SummaryMetadata("plan")
    assert metadata.plugin_data.plugin_name == "text", metadata
    (plan,) = events.Tensors("plan")
    assert plan.tensor_proto.dtype == 7, plan
    assert plan.tensor_proto.string_val[0].decode().startswith("| stage | tokens |")
    print(f"tensorboard: {sum(counts)} events in {len(files)} files, {len(scalars)} scalar tags and the text read back")


def resumed(run):
    events = EventAccumulator(directory, size_guidance={"scalars": 0})
    events.Reload()
    read = lambda name: [json.loads(line) for line in open(f"{run}/{name}", encoding="utf-8")]
    steps = [e.step for e in events.Scalars("train/loss")]
    assert steps == [r["step"] for r in read("metrics.jsonl")], steps
    measured = [r for r in read("evals.jsonl") if r["measure"] == "loss" and r["subject"] == "prose"]
    shown = [(e.step, e.value) for e in events.Scalars("heldout/loss/prose")]
    assert [step for step, _ in shown] == [r["step"] for r in measured], (shown, measured)
    assert all(abs(value - r["value"]) < 1e-5 for (_, value), r in zip(shown, measured))
    files = len(glob.glob(directory + "/events.out.tfevents.*"))
    assert files == 2, files
    print(f"tensorboard: {len(steps)} steps and {len(shown)} measurements of a run that was killed")


directory = sys.argv[1]
if len(sys.argv) > 2:
    resumed(sys.argv[2])
else:
    written()

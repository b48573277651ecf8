"""A fake cluster whose runs leave loss curves in the store and end with the losses of a known law."""

import numpy as np

from gpt3core import costs
from gpt3core.evals.spec import HELD_OUT
from gpt3core.schedule import learning_rate
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import true_loss
from tests.sweeps.fake_cluster import FakeCluster


class Training(FakeCluster):
    """Runs whose curves grow in the store, eight polls each, towards the losses of a known law."""

    def __init__(self, root, runs):
        super().__init__(root, self.grow, cpus=6.0)
        self.runs, self.age = runs, {}

    def grow(self, run_id, _):
        self.age[run_id] = self.age.get(run_id, 0) + 1
        return "done" if self.age[run_id] > 8 else ("running", 60)

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        folder = RunDir(self.root, run_id)
        self.write(folder, folder.new_attempt(), self.runs[run_id], 0.6)

    def stop(self, run_id=None):
        super().stop(run_id)
        self.age.pop(run_id, None)

    def write(self, folder, attempt, run, share):
        every = max(1, run.steps // 400)
        step = np.arange(every, int(share * run.steps) + 1, every)
        rate = np.array([learning_rate(run.optim, int(s)) for s in step]) / run.optim.lr
        n = costs.params(run.model).nonembedding
        loss = true_loss(n, run.optim.batch_tokens * step) + 0.2 * (np.sqrt(rate) - np.sqrt(0.1))
        folder.write_metrics(
            attempt, {"step": list(step), "tokens": list(step * run.optim.batch_tokens), "loss": list(loss)}
        )

    def finish(self, run_id):
        run, folder = self.runs[run_id], RunDir(self.root, run_id)
        self.write(folder, folder.attempts()[-1], run, 1.0)
        loss = true_loss(costs.params(run.model).nonembedding, run.tokens)
        noise = 1 + 0.002 * np.sin(37 * list(self.runs).index(run_id))
        rows = {"task": [HELD_OUT], "loss": [loss * noise], "loss_se": [0.01], "bits_per_byte": [loss]}
        folder.write_evaluation(self.evals.eval_id, rows)
        folder.finish({"status": "done", "tokens_per_second": 1e4, "epochs": 0.1, "precision": "fp32", "attempts": 1})

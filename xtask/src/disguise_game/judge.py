"""The judge of `cargo xtask disguise-game`: reads what was captured around each toss, and says how well real changes of
key are told from nothing. One argument, the folder of a phase; the verdict goes to standard output as JSON."""

import json
import re
import struct
import sys
import warnings
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

OUT, IN = 0, 1
FOLDS = 5
# The start of a cover that is compared with a key's stands as long after a toss, but for so much.
ALIKE_SECONDS = 0.25
GROUP_SECONDS = 5.0
AFTER_BINS = 10
BEFORE_BINS = 4
# Right after the toss, in seconds: where what is not disguised happens.
EARLY = np.array([0, 0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.030, 0.050, 0.080])
FIRST = 12
BURST_GAP = 0.001
# Sets of coins of shams against shams.
NULLS = 5
# Fewer than this of a class say nothing.
LEAST = 40


def read_pcap(path, ports):
    """Per port: times, directions, payload lengths. Nanosecond pcap of Ethernet frames, heads only."""
    data = Path(path).read_bytes()
    magic = struct.unpack_from("<I", data)[0]
    if magic != 0xA1B23C4D:
        raise SystemExit(f"{path} is no capture of nanoseconds in this machine's byte order")
    rows = {port: [] for port in ports}
    at, end = 24, len(data)
    while at + 16 <= end:
        seconds, nanos, held, _ = struct.unpack_from("<IIII", data, at)
        frame = at + 16
        at = frame + held
        if held < 54 or at > end or data[frame + 12 : frame + 14] != b"\x08\x00":
            continue
        ip = frame + 14
        tcp = ip + (data[ip] & 15) * 4
        source, target = struct.unpack_from(">HH", data, tcp)
        total = struct.unpack_from(">H", data, ip + 2)[0]
        payload = total - (tcp - ip) - (data[tcp + 12] >> 4) * 4
        time = seconds + nanos * 1e-9
        if target in rows:
            rows[target].append((time, OUT, payload))
        elif source in rows:
            rows[source].append((time, IN, payload))
    return {port: np.array(found, dtype=float).reshape(-1, 3) for port, found in rows.items()}


def read_notes(path):
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    rows = [(int(nanos) * 1e-9, float(way), float(length)) for nanos, way, length in (r for r in rows if len(r) == 3)]
    return np.array(rows, dtype=float).reshape(-1, 3)


class Lane:
    """The segments of one connection, by direction."""

    def __init__(self, rows):
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        data = rows[rows[:, 2] > 0]
        self.empty = rows[rows[:, 2] == 0, 0]
        self.way = [data[data[:, 1] == way] for way in (OUT, IN)]
        self.times = [found[:, 0] for found in self.way]
        self.sizes = [found[:, 2] for found in self.way]
        self.totals = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in self.sizes]
        self.rare = []
        for sizes in self.sizes:
            seen = Counter(sizes)
            self.rare.append(np.log2([seen[size] for size in sizes]) if len(sizes) else np.zeros(0))
        # From a segment out to the next one in: what an acknowledgement takes.
        answer = np.searchsorted(self.times[IN], self.times[OUT], side="right")
        known = answer < len(self.times[IN])
        self.latency = np.full(len(self.times[OUT]), np.nan)
        self.latency[known] = self.times[IN][answer[known]] - self.times[OUT][known]
        self.gaps = [np.diff(times, prepend=times[:1]) for times in self.times]
        self.modulus = self.step()

    def step(self):
        """The length that a block adds to a record, were it what divides most differences of lengths."""
        seen = [size for size, _ in Counter(self.sizes[OUT]).most_common(12)]
        apart = {int(abs(a - b)) for a in seen for b in seen if a != b}
        return 4112 if not apart or 4112 in apart else min((a for a in apart if a > 256), default=4112)

    def span(self, way, begin, end):
        return np.searchsorted(self.times[way], [begin, end], side="left")

    def window(self, way, begin, end, name, into):
        low, high = self.span(way, begin, end)
        sizes, times = self.sizes[way][low:high], self.times[way][low:high]
        count = high - low
        into[f"{name} segments"] = count
        into[f"{name} bytes"] = sizes.sum()
        into[f"{name} mean length"] = sizes.mean() if count else 0
        into[f"{name} greatest length"] = sizes.max() if count else 0
        into[f"{name} least length"] = sizes.min() if count else 0
        edges = np.concatenate([[begin], times, [end]])
        apart = np.diff(edges)
        longest = int(apart.argmax())
        into[f"{name} longest gap"] = apart[longest]
        into[f"{name} second gap"] = np.partition(apart, -2)[-2] if len(apart) > 1 else apart[longest]
        into[f"{name} longest gap at"] = edges[longest] - begin
        into[f"{name} after longest gap"] = sizes[longest : longest + 4].sum() if count else 0
        into[f"{name} bursts"] = int((apart > BURST_GAP).sum())
        rare = self.rare[way][low:high]
        into[f"{name} rarest length"] = rare.min() if count else 20
        into[f"{name} rare lengths"] = int((rare < 4).sum())
        odd = np.mod(sizes, self.modulus)
        into[f"{name} residues"] = len(np.unique(odd)) if count else 0
        into[f"{name} entropy"] = entropy(sizes)
        if way == OUT:
            latency = self.latency[low:high]
            latency = latency[~np.isnan(latency)]
            into[f"{name} ack mean"] = latency.mean() if len(latency) else 0
            into[f"{name} ack greatest"] = latency.max() if len(latency) else 0


def entropy(values):
    if not len(values):
        return 0.0
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log2(share)).sum())


def features(lane, at, window):
    """Everything that is looked at around one moment."""
    into = {}
    for way, word in ((OUT, "out"), (IN, "in")):
        lane.window(way, at - window, at, f"{word} before:", into)
        lane.window(way, at, at + window, f"{word} after:", into)
        for name in ("segments", "bytes", "mean length", "longest gap", "bursts", "entropy", "rarest length"):
            into[f"{word} change: {name}"] = into[f"{word} after: {name}"] - into[f"{word} before: {name}"]
        if way == OUT:
            for name in ("ack mean", "ack greatest"):
                into[f"{word} change: {name}"] = into[f"{word} after: {name}"] - into[f"{word} before: {name}"]
        for label, begin, end, bins in (("after", at, at + window, AFTER_BINS), ("before", at - window, at, BEFORE_BINS)):
            cuts = np.searchsorted(lane.times[way], np.linspace(begin, end, bins + 1))
            for number in range(bins):
                into[f"{word} {label}: bytes {number}"] = lane.totals[way][cuts[number + 1]] - lane.totals[way][cuts[number]]
                into[f"{word} {label}: segments {number}"] = cuts[number + 1] - cuts[number]
        cuts = np.searchsorted(lane.times[way], at + EARLY)
        for number in range(len(EARLY) - 1):
            into[f"{word} early: segments {number}"] = cuts[number + 1] - cuts[number]
            into[f"{word} early: bytes {number}"] = lane.totals[way][cuts[number + 1]] - lane.totals[way][cuts[number]]
        into[f"{word} early: longest gap"] = np.diff(lane.times[way][cuts[0] : cuts[-1]], prepend=at, append=at + EARLY[-1]).max()
        into[f"{word} early: rarest length"] = lane.rare[way][cuts[0] : cuts[-1]].min(initial=20)
        first = np.searchsorted(lane.times[way], at)
        for number in range(FIRST):
            place = first + number
            there = place < len(lane.times[way])
            into[f"{word} length +{number}"] = lane.sizes[way][place] if there else 0
            into[f"{word} odd +{number}"] = lane.sizes[way][place] % lane.modulus if there else 0
            into[f"{word} gap +{number}"] = np.log(lane.gaps[way][place] + 1e-6) if there and place else 0
            if way == OUT and number < 4:
                known = there and not np.isnan(lane.latency[place])
                into[f"{word} ack +{number}"] = np.log(lane.latency[place] + 1e-6) if known else 0
        for number in range(1, 5):
            place = first - number
            into[f"{word} length -{number}"] = lane.sizes[way][place] if place >= 0 else 0
            into[f"{word} gap -{number}"] = np.log(lane.gaps[way][place] + 1e-6) if place > 0 else 0
    into["empty after"] = int(np.diff(np.searchsorted(lane.empty, [at, at + window]))[0])
    into["empty before"] = int(np.diff(np.searchsorted(lane.empty, [at - window, at]))[0])
    return into


def history(lane, at, window):
    """What a moment could be foretold from: nothing that comes after it, and nothing that the line does not show, such as
    when a key changed before."""
    into = {}
    for way, word in ((OUT, "out"), (IN, "in")):
        lane.window(way, at - window, at, f"{word} before:", into)
        here = np.searchsorted(lane.times[way], at)
        for number in range(1, 5):
            place = here - number
            into[f"{word} length -{number}"] = lane.sizes[way][place] if place >= 0 else 0
            into[f"{word} age -{number}"] = np.log(at - lane.times[way][place] + 1e-6) if place >= 0 else 0
    return into


def error(auc, ones, zeros):
    """Hanley and McNeil, 1982."""
    one, two = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (ones - 1) * (one - auc * auc) + (zeros - 1) * (two - auc * auc)
    return float(np.sqrt(max(spread, 0) / (ones * zeros)))


def figures(labels, scores):
    auc = float(roc_auc_score(labels, scores))
    se = error(auc, int(labels.sum()), int((1 - labels).sum()))
    return {"auc": auc, "se": se, "upper": auc + 1.645 * se}


def boosting():
    return HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=20, l2_regularization=1.0, random_state=1
    )


def logistic():
    ranks = QuantileTransformer(output_distribution="normal", n_quantiles=200, random_state=1)
    return make_pipeline(ranks, StandardScaler(), LogisticRegression(C=0.02, max_iter=400))


def scores(make, table, labels, groups):
    """Out-of-fold scores. Each fold's are turned into ranks: what one model calls likely another need not."""
    found = np.zeros(len(labels))
    folds = min(FOLDS, len(np.unique(groups)))
    for learn, judge in GroupKFold(folds).split(table, labels, groups):
        if len(np.unique(labels[learn])) < 2:
            found[judge] = 0.5
            continue
        guess = make().fit(table[learn], labels[learn]).predict_proba(table[judge])[:, 1]
        found[judge] = (np.argsort(np.argsort(guess)) + 0.5) / len(judge)
    return found


def enough(labels):
    return min(labels.sum(), (1 - labels).sum()) >= LEAST


def nothing(table, groups):
    """Shams against shams, by coins of their own. Where as many are heads as tails, what is learned of one part is wrong of
    the rest, and the area falls below a half: these coins are each tossed alone, and several sets are tossed."""
    chance = np.random.default_rng(7)
    found = []
    for _ in range(NULLS):
        coins = chance.integers(2, size=len(table))
        found.append(figures(coins, scores(boosting, table, coins, groups)))
    # The sets have their features in common: the mean is given the doubt of one.
    return {name: float(np.mean([figure[name] for figure in found])) for name in ("auc", "se", "upper")}


def marginals(table, names, labels, wanted):
    rows = []
    for name in wanted:
        column = table[:, names.index(name)]
        ks = ks_2samp(column[labels == 1], column[labels == 0])
        # The upper bound of the distance, after Dvoretzky, Kiefer, Wolfowitz and Massart.
        ones, zeros = labels.sum(), (1 - labels).sum()
        slack = 1.36 * np.sqrt((ones + zeros) / (ones * zeros))
        rows.append({"feature": name, "ks": ks.statistic, "p": min(1.0, ks.pvalue * len(wanted)), "at-most": ks.statistic + slack})
    return rows


def alone(table, names, labels):
    """How well each feature tells by itself."""
    rows = []
    for number, name in enumerate(names):
        column = table[:, number]
        if column.min() == column.max():
            continue
        auc = roc_auc_score(labels, column)
        ks = ks_2samp(column[labels == 1], column[labels == 0], method="asymp")
        rows.append({"feature": name, "auc": float(max(auc, 1 - auc)), "ks": float(ks.statistic), "p": float(ks.pvalue)})
    return sorted(rows, key=lambda row: -row["ks"])


def importances(table, names, labels, groups):
    """What the boosting's verdict on the last fold rests on."""
    learn, judge = list(GroupKFold(min(FOLDS, len(np.unique(groups)))).split(table, labels, groups))[-1]
    if len(np.unique(labels[judge])) < 2 or len(np.unique(labels[learn])) < 2:
        return []
    model = boosting().fit(table[learn], labels[learn])
    found = permutation_importance(model, table[judge], labels[judge], scoring="roc_auc", n_repeats=3, random_state=1)
    order = np.argsort(-found.importances_mean)[:12]
    return [{"feature": names[n], "auc-lost": float(found.importances_mean[n])} for n in order if found.importances_mean[n] > 0]


def times(lines):
    """Moments in the node's log, in seconds."""
    found = []
    for line in lines:
        stamp = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+", line)
        if stamp:
            found.append(datetime.fromisoformat(stamp.group() + "+00:00").timestamp())
    return np.array(sorted(found))


def came(toss, changed):
    """When the key came into force that was asked for with a toss; none where that was nothing, or where the next toss was first."""
    place = np.searchsorted(changed, toss["at"])
    if toss["real"] and place < len(changed) and changed[place] < toss["until"]:
        return changed[place]
    return None


def activation(lanes, window, workload_at):
    """Can the moment be foretold at which a key comes into force? Against the starts of covers, each in the same lane, as long
    after a toss, which costs the machine something by itself, and with the same workload at the toss and at the moment; where
    nothing covers, against moments as long after a toss. Only what came before is looked at."""
    chance = np.random.default_rng(1)
    rows, labels, groups, delays = [], [], [], []

    def add(lane, number, at, label):
        rows.append(history(lane, at, window))
        labels.append(label)
        groups.append(workload_at(number, at)[1])

    for number, (lane, tosses, changed, covers) in enumerate(lanes):
        # Every start of a cover counts alike: the one that is nearest to a moment stands behind a long gap more often than not.
        pool = {}
        for toss in tosses:
            if not toss["real"]:
                for start in covers[np.searchsorted(covers, toss["at"]) : np.searchsorted(covers, toss["until"])]:
                    there = (toss["workload"], workload_at(number, start)[0])
                    pool.setdefault(there, {})[start] = start - toss["at"]
        for toss in tosses:
            at = came(toss, changed)
            if at is None:
                continue
            delay = at - toss["at"]
            others = pool.get((toss["workload"], workload_at(number, at)[0]), {})
            if len(covers):
                alike = [start for start, after in others.items() if abs(after - delay) <= ALIKE_SECONDS]
            else:
                alike = [other["at"] + delay for other in tosses if not other["real"] and other["workload"] == toss["workload"]]
            if not alike:
                continue
            sham = alike[chance.integers(len(alike))]
            others.pop(sham, None)
            delays.append(delay)
            add(lane, number, at, 1)
            add(lane, number, sham, 0)
    labels, groups = np.array(labels), np.array(groups)
    if not len(labels) or not enough(labels):
        return {}
    table = np.array([list(row.values()) for row in rows], dtype=float)
    found = figures(labels, scores(boosting, table, labels, groups))
    found["delay-median-s"], found["delay-p95-s"] = float(np.median(delays)), float(np.quantile(delays, 0.95))
    found["real"], found["sham"] = int(labels.sum()), int((1 - labels).sum())
    found["telling"] = alone(table, list(rows[0]), labels)[:10]
    return found


def main():
    # Of fewer samples than quantiles there are fewer quantiles: no news.
    warnings.filterwarnings("ignore", message="n_quantiles")
    folder = Path(sys.argv[1])
    game = json.loads((folder / "game.json").read_text())
    window = game["window"]
    ports = [port for lane in game["lanes"] for port in (lane["port"], lane.get("escrow")) if port]
    seen = read_pcap(folder / game["pcap"], ports) if game["pcap"] else {}
    rows, labels, groups, workloads, lanes, activations, segments = [], [], [], [], [], 0, 0
    for number, told in enumerate(game["lanes"]):
        lane = Lane(seen[told["port"]] if game["pcap"] else read_notes(folder / told["notes"]))
        third = Lane(seen[told["escrow"]]) if told.get("escrow") else None
        segments += sum(len(found) for found in lane.times)
        changed, covers = times(told["changed"]), times(told["covers"])
        activations += int((changed > game["begun"] * 1e-9).sum())
        tosses = []
        ends = [event["at"] * 1e-9 for event in told["events"][1:]] + [float("inf")]
        for event, until in zip(told["events"], ends):
            if event["refused"]:
                continue
            at = event["at"] * 1e-9
            since = at - game["begun"] * 1e-9
            # Blocks of time, which all lanes share.
            toss = {"at": at, "until": until, "real": event["real"], "group": int(since // GROUP_SECONDS)}
            toss["workload"] = told["turns"][int(since // game["turn"]) % len(told["turns"])]
            tosses.append(toss)
            row = features(lane, at, window)
            if third:
                row |= {f"escrow {name}": value for name, value in features(third, at, window).items()}
            rows.append(row)
            labels.append(int(event["real"]))
            groups.append(toss["group"])
            workloads.append(toss["workload"])
        lanes.append((lane, tosses, changed, covers))
    moments = [(toss, came(toss, changed)) for _, tosses, changed, _ in lanes for toss in tosses]
    delays = [at - toss["at"] for toss, at in moments if at is not None]
    names = list(rows[0])
    table = np.array([[row[name] for name in names] for row in rows], dtype=float)
    labels, groups, workloads = np.array(labels), np.array(groups), np.array(workloads)
    verdict = {name: game[name] for name in ("phase", "disguise", "how", "capture", "window", "dropped")}
    verdict |= {"events": len(labels), "real": int(labels.sum()), "sham": int((1 - labels).sum())}
    verdict["refused"] = sum(event["refused"] for lane in game["lanes"] for event in lane["events"])
    verdict |= {"segments": segments, "activations": activations, "models": {}, "by-workload": {}}
    verdict |= {"within": int(sum(delay < window for delay in delays)), "delay-p95-s": float(np.quantile(delays, 0.95)) if delays else None}
    guesses = {}
    for name, make in (("boosting", boosting), ("logistic", logistic)):
        guesses[name] = scores(make, table, labels, groups)
        verdict["models"][name] = figures(labels, guesses[name])
    for workload in sorted(set(workloads)):
        here = workloads == workload
        if enough(labels[here]):
            verdict["by-workload"][workload] = {name: figures(labels[here], guess[here]) for name, guess in guesses.items()}
    verdict["null"] = nothing(table[labels == 0], groups[labels == 0])
    verdict["telling"] = alone(table, names, labels)[:20]
    verdict["importances"] = importances(table, names, labels, groups)
    wanted = ["out length +0", "out gap +0", "out ack +0", "in length +0", "out after: longest gap", "out after: bytes"]
    verdict["marginals"] = marginals(table, names, labels, wanted)

    def workload_at(number, at):
        since, turns = at - game["begun"] * 1e-9, game["lanes"][number]["turns"]
        return turns[int(since // game["turn"]) % len(turns)], int(since // GROUP_SECONDS)

    verdict["activation"] = activation(lanes, window, workload_at)
    json.dump(verdict, sys.stdout, default=float, indent=1)


main()

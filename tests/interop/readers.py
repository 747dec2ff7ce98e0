"""Reads with others' code what volley and its judge write: metrics and latency histograms.

  readers.py metrics URL      the metrics endpoint, by the strict OpenMetrics parser of prometheus-client
  readers.py histograms DIR   latency.hlog beside report.json, by the Python HdrHistogram
"""

import json
import math
import sys
import urllib.request
import warnings


def metrics(url):
    from prometheus_client.openmetrics import parser

    warnings.simplefilter("error")
    with urllib.request.urlopen(url, timeout=10) as answer:
        kind = answer.headers["Content-Type"]
        text = answer.read().decode("utf-8")
    assert kind.startswith("application/openmetrics-text"), kind
    families = list(parser.text_string_to_metric_families(text))
    names = {family.name for family in families}
    assert len(names) == len(families), "a family is there twice"
    for family in families:
        assert family.documentation, f"{family.name} has no help"
        assert family.type != "unknown", f"{family.name} has no type"
    samples = sum(len(family.samples) for family in families)
    wanted = {"volley_invites_sent", "volley_deposits", "volley_build_info"}
    assert wanted <= names, wanted - names
    print(f"{len(families)} families, {samples} samples")


def histograms(directory):
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    with open(f"{directory}/report.json", encoding="utf-8") as file:
        curves = {curve["stage"]: curve["points"] for curve in json.load(file)["curves"]}
    log = f"{directory}/latency.hlog"
    reference = HdrHistogram(1, 3_600_000_000_000, 3)
    reader, read = HistogramLogReader(log, reference), []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read.append(histogram)
    with open(log, encoding="utf-8") as file:
        stages = [line[4 : line.index(",")] for line in file if line.startswith("Tag=")]
    assert len(read) == len(stages) and set(stages) >= set(curves), (len(read), stages)

    compared, own, other_rank = 0, 0, 0
    for stage, histogram in zip(stages, read):
        total, cumulative = histogram.get_total_count(), []
        for item in histogram.get_recorded_iterator():
            cumulative.append((item.total_count_to_this_value, item.value_iterated_to))
        for quantile, milliseconds in curves.get(stage, []):
            rank = max(1, math.ceil(quantile * total))
            value = next(value for count, value in cumulative if count >= rank)
            # Of a cell's equivalent values the original names the lowest at zero, else the highest.
            shown = histogram.get_lowest_equivalent_value(value) if quantile == 0 else value
            # The last point is the largest value, which is zero when nothing was above it.
            if quantile == 1 and histogram.get_lowest_equivalent_value(value) == 0:
                shown = 0
            found = (stage, quantile, shown / 1e6, milliseconds)
            assert math.isclose(shown / 1e6, milliseconds, rel_tol=1e-12), found
            compared += 1
            # This reader's own percentile rounds the rank to the nearest; the original and ours, up.
            if max(1, math.floor(quantile * total + 0.5)) == rank:
                theirs = histogram.get_value_at_percentile(quantile * 100)
                assert histogram.get_highest_equivalent_value(theirs) == value, (stage, quantile)
                own += 1
            else:
                other_rank += 1
    assert compared > 20 and own > 10, (compared, own)
    print(f"{len(read)} histograms, {compared} percentiles equal, {own} also by the reader's own rank, "
          f"{other_rank} where that rank is another")


def main():
    what, place = sys.argv[1:]
    {"metrics": metrics, "histograms": histograms}[what](place)


main()

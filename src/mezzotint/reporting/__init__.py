"""Reports: figures and the page.

Here: curves, charts, blocks, sections, one HTML file. They read JSON and PNG.
Not here: tensors, and anything that computes a metric.
"""

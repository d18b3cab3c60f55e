"""From results to report.json and the page: schema, document, view and rendering, each pure but the last."""

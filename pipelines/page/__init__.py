"""Pages and charts of reports: HTML and SVG that load nothing and run nothing."""

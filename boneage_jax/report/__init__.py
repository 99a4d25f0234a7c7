"""One page about a child: radiograph, heat map, bone age, comparison with the chronological age, and provenance."""

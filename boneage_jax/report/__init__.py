"""One page about a child: radiograph, heat map, bone age, its comparison with the age, and where it comes from."""

"""How closely generated sections follow real ones, against what expression alone gives."""

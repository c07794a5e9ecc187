//! A peer of our own making that speaks HBONE to a pod: to say what no agent of ours would ever say.

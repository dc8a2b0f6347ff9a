// Where the repository is: this file lies one folder below it both as source (bench/) and compiled (dist-bench/).

export const ROOT = new URL('../', import.meta.url);

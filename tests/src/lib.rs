//! End-to-end scenarios and foreign peers live in `tests/`, the project's own tasks in `xtask/`.

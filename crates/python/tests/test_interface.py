"""The interface is the original's, whole, and what it says of itself holds."""

import ast
import inspect
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

import finetuner
from finetuner import _fit, _native, exception

#: `finetuner/__init__.py` of version 0.8.1, and what a run and an experiment have there.
ORIGINAL = {
    "login": "force interactive",
    "get_token": "",
    "notebook_login": "",
    "list_callbacks": "",
    "list_models": "",
    "list_model_options": "",
    "describe_models": "task",
    "fit": "model train_data eval_data val_split model_artifact run_name description experiment_name model_options loss miner "
    "miner_options optimizer optimizer_options learning_rate epochs batch_size callbacks scheduler scheduler_options freeze "
    "output_dim device num_workers to_onnx csv_options public num_items_per_class sampler loss_optimizer "
    "loss_optimizer_options",
    "synthesize": "query_data corpus_data models num_relations run_name description experiment_name device num_workers "
    "csv_options public",
    "get_run": "run_name experiment_name",
    "list_runs": "experiment_name page size",
    "delete_run": "run_name experiment_name",
    "delete_runs": "experiment_name",
    "create_experiment": "name",
    "get_experiment": "name",
    "list_experiments": "page size",
    "delete_experiment": "name",
    "delete_experiments": "",
    "build_model": "name model_options batch_size select_model device is_onnx",
    "get_model": "artifact token batch_size select_model device logging_level is_onnx",
    "encode": "model data batch_size",
    "cos_sim": "a b",
}
RUN = "name config status logs stream_logs metrics display_metrics example_results display_examples save_artifact artifact_id train_data"
EXPERIMENT = "name status get_run list_runs delete_run delete_runs create_training_run create_synthesis_run"
PACKAGE = pathlib.Path(finetuner.__file__).parent


@pytest.mark.parametrize("name", ORIGINAL)
def test_arguments_of_the_original(name):
    parameters = inspect.signature(getattr(finetuner, name)).parameters
    positional = [name for name, one in parameters.items() if one.kind == one.POSITIONAL_OR_KEYWORD]
    wanted = ORIGINAL[name].split()
    assert set(wanted) <= set(parameters)
    if name != "login":  # whose first argument is the server
        assert positional[: len(wanted)] == wanted


def test_members_of_the_original():
    assert set(RUN.split()) <= set(dir(finetuner.Run))
    assert set(EXPERIMENT.split()) <= set(dir(finetuner.Experiment))
    assert finetuner.create_training_run is finetuner.create_run is finetuner.fit
    assert finetuner.exception.FinetunerServerError is exception.ServiceError
    assert set(finetuner.__all__) <= set(dir(finetuner))


def test_the_version_is_that_of_the_workspace():
    assert f'version = "{finetuner.__version__}"\n' in (ROOT / "Cargo.toml").read_text()


def test_every_field_of_a_run_is_an_argument():
    arguments = set(inspect.signature(finetuner.fit).parameters) | set(_fit.Fields.__annotations__)
    assert set(_native.field_names()) <= arguments


def test_the_stub_names_what_is_there():
    stub = ast.parse((PACKAGE / "_native.pyi").read_text())
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            members = {member.name for member in node.body if not member.name.startswith("__")}
            assert members == {name for name in vars(getattr(_native, node.name)) if not name.startswith("__")}
    names = {node.name for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert names == {name for name in dir(_native) if not name.startswith("_")}


def test_types_hold():
    mypy = pytest.importorskip("mypy.api", reason="mypy is not installed")
    root = pathlib.Path(__file__).resolve().parents[1]
    told, _, code = mypy.run(["--config-file", str(root / "pyproject.toml"), str(root / "python" / "finetuner")])
    assert code == 0, told


def test_importing_is_light():
    script = "import sys, finetuner; print([name for name in ('numpy', 'tqdm', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"

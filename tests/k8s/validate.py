"""Everything that k8s/ renders to, against schemas and models that others publish. tests/k8s/validate starts this."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml
from hera.workflows.models import WorkflowTemplate
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import TrainerV1alpha1TrainingRuntime

VERSIONS = [f"1.{minor}" for minor in range(31, 38)]
KUBECTL = os.environ.get("KUBECTL", "kubectl")
ROOT = pathlib.Path(__file__).resolve().parents[2] / "k8s"

MODELS = {
    "JobSet": JobsetV1alpha2JobSet,
    "TrainingRuntime": TrainerV1alpha1TrainingRuntime,
    "TrainJob": TrainerV1alpha1TrainJob,
}
# Published as CustomResourceDefinitions alone; tests/k8s/run has a server check them where they are installed.
ELSEWHERE = {"Certificate", "Issuer", "PodMonitor"}


def kustomize(folder):
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{folder}: {done.stderr}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def renderings():
    """Each folder as it is, each component on an overlay, and all of them together."""
    yield from ((f, kustomize(ROOT / f)) for f in ("base", "argo", "kubeflow-trainer"))
    yield from ((f"overlays/{o.name}", kustomize(o)) for o in sorted((ROOT / "overlays").iterdir()))
    components = sorted(c.name for c in (ROOT / "components").iterdir())
    others = [c for c in components if c != "jobset"]
    for some in [[c] for c in components] + [others, [*others, "jobset"]]:
        with tempfile.TemporaryDirectory() as folder:
            text = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "soup",
                "resources": [os.path.relpath(ROOT / "overlays/s3", os.path.realpath(folder))],
                "components": [os.path.relpath(ROOT / "components" / c, os.path.realpath(folder)) for c in some],
            }
            (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(text))
            yield "overlays/s3 + " + ", ".join(some), kustomize(folder)
    yield "trainjob.yaml", list(yaml.safe_load_all((ROOT / "kubeflow-trainer/trainjob.yaml").read_text()))


def sets_of(thing):
    """The specs of JobSets in an object."""
    if thing["kind"] == "JobSet":
        yield thing["spec"]
    if thing["kind"] == "TrainingRuntime":
        yield thing["spec"]["template"]["spec"]


def manifests_of(workflow):
    """What a WorkflowTemplate creates, with the values that its parameters have by themselves."""
    parameters = {p["name"]: p["value"] for p in workflow["spec"]["arguments"]["parameters"]}
    for template in workflow["spec"]["templates"]:
        if "resource" not in template:
            continue
        text = template["resource"]["manifest"].replace("{{workflow.name}}", "soup-x7k2p")
        for name, value in parameters.items():
            text = text.replace("{{workflow.parameters.%s}}" % name, value)
            text = text.replace("{{=toJson(workflow.parameters.%s)}}" % name, json.dumps(value))
        if "{{" in text:
            sys.exit(f"{template['name']}: what is this to become?\n{text}")
        yield yaml.safe_load(text)


def expand(thing):
    """The object, and objects that controllers will make of it."""
    yield thing
    if thing["kind"] == "WorkflowTemplate":
        for manifest in manifests_of(thing):
            yield from expand(manifest)
    for spec in sets_of(thing):
        for job in spec["replicatedJobs"]:
            yield from expand({
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": f"soup-{job['name']}-0", "labels": job["template"]["metadata"]["labels"]},
                "spec": job["template"]["spec"],
            })
    if thing["kind"] == "Job":
        template = thing["spec"]["template"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "soup", **template["metadata"]}, "spec": template["spec"]}


def lost(ours, back, path=""):
    """Where something of ours is not what came back. Defaults may be added on the way."""
    if isinstance(ours, dict) and isinstance(back, dict):
        return next((found for key in ours if (found := lost(ours[key], back.get(key), f"{path}.{key}"))), None)
    if isinstance(ours, list) and isinstance(back, list) and len(ours) == len(back):
        pairs = enumerate(zip(ours, back, strict=True))
        return next((found for at, (a, b) in pairs if (found := lost(a, b, f"{path}[{at}]"))), None)
    return None if ours == back else f"{path}: {ours!r} comes back as {back!r}"


def by_model(thing):
    """A field that the model does not know is lost on the way there and back."""
    if thing["kind"] == "WorkflowTemplate":
        back = WorkflowTemplate.model_validate(thing).model_dump(mode="json", by_alias=True, exclude_unset=True)
    else:
        back = MODELS[thing["kind"]].from_dict(thing).to_dict()
    return lost(thing, back)


def check(thing):
    kind = thing["kind"]
    if kind in MODELS or kind == "WorkflowTemplate":
        try:
            return [("model", by_model(thing))]
        except ValueError as error:
            return [("model", str(error))]
    if kind in ELSEWHERE:
        return []
    results = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
            results.append((version, None))
        except Exception as error:
            results.append((version, str(error)))
    return results


def main():
    seen, passed, failed, left = set(), 0, 0, set()
    for name, objects in renderings():
        for document in objects:
            for thing in expand(document):
                key = json.dumps(thing, sort_keys=True)
                if key in seen:
                    continue
                seen.add(key)
                title = f"{name}: {thing['kind']} {thing['metadata']['name']}"
                if "--list" in sys.argv:
                    print(title)
                results = check(thing)
                if not results:
                    left.add(thing["kind"])
                for against, error in results:
                    passed += error is None
                    failed += error is not None
                    if error:
                        print(f"{title}: {against}: {error}", file=sys.stderr)
    print(f"{len(seen)} objects; not held against a schema here: {', '.join(sorted(left))}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

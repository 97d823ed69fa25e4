from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("protocol", "version", "digest", "numerics", "abilities", "datasets", "tolerance")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    version: str
    digest: str
    numerics: str
    abilities: _containers.RepeatedScalarFieldContainer[str]
    datasets: _containers.RepeatedScalarFieldContainer[str]
    tolerance: float
    def __init__(self, protocol: _Optional[int] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., numerics: _Optional[str] = ..., abilities: _Optional[_Iterable[str]] = ..., datasets: _Optional[_Iterable[str]] = ..., tolerance: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("what",)
    WHAT_FIELD_NUMBER: _ClassVar[int]
    what: str
    def __init__(self, what: _Optional[str] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("session", "tensors", "datasets", "model_config_json", "preprocessor_config_json", "batch_size", "class_subset")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSOR_CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CLASS_SUBSET_FIELD_NUMBER: _ClassVar[int]
    session: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    model_config_json: str
    preprocessor_config_json: str
    batch_size: int
    class_subset: bool
    def __init__(self, session: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., model_config_json: _Optional[str] = ..., preprocessor_config_json: _Optional[str] = ..., batch_size: _Optional[int] = ..., class_subset: bool = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "recomputed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    recomputed: bool
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., recomputed: bool = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "source", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    source: str
    options: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., source: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class OpenResponse(_message.Message):
    __slots__ = ("progress", "survey")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SURVEY_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    survey: Survey
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., survey: _Optional[_Union[Survey, _Mapping]] = ...) -> None: ...

class Survey(_message.Message):
    __slots__ = ("samples", "classes", "figures", "values", "notes")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedScalarFieldContainer[int]
    classes: int
    figures: Figures
    values: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, samples: _Optional[_Iterable[int]] = ..., classes: _Optional[int] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ..., values: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class Figures(_message.Message):
    __slots__ = ("names", "metrics", "ranges")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("figure", "least", "most", "fixed")
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    figure: str
    least: float
    most: float
    fixed: bool
    def __init__(self, figure: _Optional[str] = ..., least: _Optional[float] = ..., most: _Optional[float] = ..., fixed: bool = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "formula", "figure", "by", "lower_is_better")
    class Formula(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMULA_UNSPECIFIED: _ClassVar[Metric.Formula]
        FORMULA_MEAN: _ClassVar[Metric.Formula]
        FORMULA_RATIO: _ClassVar[Metric.Formula]
        FORMULA_EXP_RATIO: _ClassVar[Metric.Formula]
    FORMULA_UNSPECIFIED: Metric.Formula
    FORMULA_MEAN: Metric.Formula
    FORMULA_RATIO: Metric.Formula
    FORMULA_EXP_RATIO: Metric.Formula
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    LOWER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    formula: Metric.Formula
    figure: str
    by: str
    lower_is_better: bool
    def __init__(self, name: _Optional[str] = ..., formula: _Optional[_Union[Metric.Formula, str]] = ..., figure: _Optional[str] = ..., by: _Optional[str] = ..., lower_is_better: bool = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("session", "generation", "path", "recompute")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_FIELD_NUMBER: _ClassVar[int]
    session: str
    generation: int
    path: str
    recompute: Recompute
    def __init__(self, session: _Optional[str] = ..., generation: _Optional[int] = ..., path: _Optional[str] = ..., recompute: _Optional[_Union[Recompute, _Mapping]] = ...) -> None: ...

class Recompute(_message.Message):
    __slots__ = ("dataset", "samples", "block_samples", "path")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    samples: int
    block_samples: int
    path: str
    def __init__(self, dataset: _Optional[int] = ..., samples: _Optional[int] = ..., block_samples: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class LoadResponse(_message.Message):
    __slots__ = ("progress", "loaded")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    loaded: Loaded
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., loaded: _Optional[_Union[Loaded, _Mapping]] = ...) -> None: ...

class Loaded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JudgeRequest(_message.Message):
    __slots__ = ("session", "generation", "dataset", "positions", "block_samples", "logits")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    session: str
    generation: int
    dataset: int
    positions: _containers.RepeatedScalarFieldContainer[int]
    block_samples: int
    logits: bool
    def __init__(self, session: _Optional[str] = ..., generation: _Optional[int] = ..., dataset: _Optional[int] = ..., positions: _Optional[_Iterable[int]] = ..., block_samples: _Optional[int] = ..., logits: bool = ...) -> None: ...

class JudgeResponse(_message.Message):
    __slots__ = ("generation", "progress", "block")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    generation: int
    progress: Progress
    block: Block
    def __init__(self, generation: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., block: _Optional[_Union[Block, _Mapping]] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("block", "outcomes", "sums", "values", "logits")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    block: int
    outcomes: Outcomes
    sums: Sums
    values: Values
    logits: bytes
    def __init__(self, block: _Optional[int] = ..., outcomes: _Optional[_Union[Outcomes, _Mapping]] = ..., sums: _Optional[_Union[Sums, _Mapping]] = ..., values: _Optional[_Union[Values, _Mapping]] = ..., logits: _Optional[bytes] = ...) -> None: ...

class Outcomes(_message.Message):
    __slots__ = ("labels", "predictions", "losses")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedScalarFieldContainer[int]
    predictions: _containers.RepeatedScalarFieldContainer[int]
    losses: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, labels: _Optional[_Iterable[int]] = ..., predictions: _Optional[_Iterable[int]] = ..., losses: _Optional[_Iterable[float]] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("truths", "predictions")
    TRUTHS_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    truths: _containers.RepeatedScalarFieldContainer[float]
    predictions: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, truths: _Optional[_Iterable[float]] = ..., predictions: _Optional[_Iterable[float]] = ...) -> None: ...

class Sums(_message.Message):
    __slots__ = ("samples", "values")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    samples: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, samples: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class DifferentiateRequest(_message.Message):
    __slots__ = ("session", "generation", "dataset", "positions", "block_samples", "beta", "label_smoothing", "scale", "path")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    session: str
    generation: int
    dataset: int
    positions: _containers.RepeatedScalarFieldContainer[int]
    block_samples: int
    beta: float
    label_smoothing: float
    scale: float
    path: str
    def __init__(self, session: _Optional[str] = ..., generation: _Optional[int] = ..., dataset: _Optional[int] = ..., positions: _Optional[_Iterable[int]] = ..., block_samples: _Optional[int] = ..., beta: _Optional[float] = ..., label_smoothing: _Optional[float] = ..., scale: _Optional[float] = ..., path: _Optional[str] = ...) -> None: ...

class DifferentiateResponse(_message.Message):
    __slots__ = ("generation", "progress", "differentiated")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIATED_FIELD_NUMBER: _ClassVar[int]
    generation: int
    progress: Progress
    differentiated: Differentiated
    def __init__(self, generation: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., differentiated: _Optional[_Union[Differentiated, _Mapping]] = ...) -> None: ...

class Differentiated(_message.Message):
    __slots__ = ("loss", "d_beta", "correct", "total")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    D_BETA_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    loss: float
    d_beta: float
    correct: int
    total: int
    def __init__(self, loss: _Optional[float] = ..., d_beta: _Optional[float] = ..., correct: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("session", "generation")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    session: str
    generation: int
    def __init__(self, session: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

"""Makes ``python -m lmms_eval --model qig --model_args checkpoint=DIR`` work, through an entry point."""


def manifest():
    """What lmms-eval's model registry reads; it imports the class itself, when a run asks for it."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="qig", chat_class_path="qig.evaluation.chat_model.QigChatModel")

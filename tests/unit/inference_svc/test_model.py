import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from inference_svc import device, model, packaged
from inference_svc.admission import Rejected
from inference_svc.device import Device
from inference_svc.model import LanguageModel
from inference_svc.prompt import Prompts, plain
from o11y.web.service import StartError

CPU = Device("cpu", torch.float32)


def test_a_folder_is_loaded_under_its_name(model_folder: Path, tmp_path: Path) -> None:
    loaded = model.load(str(model_folder), CPU, tmp_path)
    assert (loaded.name, loaded.device, loaded.window) == ("tiny", "cpu", 128)
    assert loaded.parameters == sum(p.numel() for p in loaded.model.parameters())


def test_a_folder_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"^LOCAL_MODEL_NAME={tmp_path}: "):
        model.load(str(tmp_path), CPU, tmp_path)


def test_a_gpu_number_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(StartError, match=r"GPU_DEVICE_ID=2: this machine has 2 GPU\(s\)"):
        device.choose(use_gpu=True, gpu_device_id=2)


@pytest.mark.parametrize(
    ("cuda", "mps", "use_gpu", "name", "dtype"),
    [
        (True, False, True, "cuda:1", torch.bfloat16),
        (False, True, True, "mps", torch.float16),
        (True, True, False, "cpu", torch.float32),
        (False, False, True, "cpu", torch.float32),
    ],
)
def test_the_device_is_the_best_there_is(
    monkeypatch: pytest.MonkeyPatch,
    cuda: bool,
    mps: bool,
    use_gpu: bool,
    name: str,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert device.choose(use_gpu, gpu_device_id=1) == Device(name, dtype)
    asked = device.choose(use_gpu, gpu_device_id=1, dtype="float32")
    assert asked == Device(name, torch.float32)


def test_two_starts_at_once_convert_the_packaged_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def convert(command: Sequence[str], **_: object) -> SimpleNamespace:
        started.append(command[-1])
        Path(command[-1]).mkdir()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", convert)
    threads = [threading.Thread(target=packaged.ensure, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert started == [str(tmp_path / "gemma-3-270m-bf16")]


def test_a_failed_conversion_is_the_converter_s_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = SimpleNamespace(returncode=1, stderr="a trace\nOSError: no space left\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(StartError, match="could not be prepared: OSError: no space left"):
        model.load(None, CPU, tmp_path)


def test_the_plain_template_ends_where_the_answer_begins() -> None:
    messages = [("system", "Be brief."), ("user", "Hi. "), ("assistant", "Hello."), ("user", "Bye")]
    assert plain(messages) == (
        "Be brief.\n\nQuestion: Hi.\n\nAnswer: Hello.\n\nQuestion: Bye\n\nAnswer:"
    )


async def test_a_models_own_template_is_used_and_ends_where_the_answer_begins(
    language_model: LanguageModel,
) -> None:
    tokenizer = language_model.tokenizer
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content }} {% endfor %}"
        "{% if add_generation_prompt %}w9{% endif %}"
    )
    prompts = Prompts(tokenizer, 64)
    assert await prompts.chat([("system", "w1"), ("user", "w2 w3")]) == [1, 2, 3, 9]


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('Conversation roles must alternate user/assistant') }}",
        "{% for m in messages %}{{ m.nothing.at_all }}{% endfor %}",
        "{{ messages[0]['content'] + 7 }}",
        "{{ messages[99]['content'].strip() }}",
        "{{ (messages[0]['content'] | int) // 0 }}",
        "{{ messages | unheard_of }}",
    ],
)
async def test_a_template_may_refuse_the_messages(
    template: str, language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model.tokenizer, "chat_template", template, raising=False)
    with pytest.raises(Rejected, match="chat template refuses the messages") as why:
        await Prompts(language_model.tokenizer, 64).chat([("user", "w1")])
    assert (why.value.status, why.value.errors[0]["field"]) == (400, "messages")


async def test_a_text_that_cannot_fit_is_refused_before_it_is_read(
    language_model: LanguageModel,
) -> None:
    """The longest word of the tiny model has five characters, `<eos>`."""
    prompts = Prompts(language_model.tokenizer, 8)
    assert len(await prompts.text("w1 " * 13)) == 13
    for refused in (prompts.text("w1 " * 14), prompts.chat([("user", "w1 " * 7)] * 2)):
        with pytest.raises(Rejected, match=r"42 characters, and the 8 tokens .* 40 ") as why:
            await refused
        assert (why.value.status, why.value.code) == (422, "context_length_exceeded")

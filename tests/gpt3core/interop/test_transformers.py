"""Our models and tokenizers against those of Hugging Face's transformers, in both directions."""

import json
import os
from dataclasses import replace

import pytest
import torch

from gpt3core.data import tokenizer
from gpt3core.errors import StoreError, UsageError
from gpt3core.generate.beam import beam_search
from gpt3core.generate.choices import Sampling
from gpt3core.generate.decode import complete
from gpt3core.generate.sampling import Sampler
from gpt3core.interop import gpt2
from gpt3core.interop.folder import export_gpt2, import_gpt2
from gpt3core.model.gpt import GPT
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.sizes import nano

pytestmark = pytest.mark.xdist_group("transformers")  # importing it takes seconds: in one process, and when needed

VOCAB, END = 300, 299
ACTIVATION = gpt2.ACTIVATIONS[0]


def hugging_face():
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
    import transformers

    return transformers


def stir(model: torch.nn.Module) -> None:
    """Random weights, biases and norms too: nothing that a layout drops may be zero or one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * (0.15 if p.dim() > 1 else 0.3))


def make(attention: str, *, n_layer: int = 3, band: int = 5) -> GPT:
    spec = nano(32, n_layer=n_layer, n_ctx=24, vocab_size=VOCAB, attention=attention, band=band, n_head=2)
    model = GPT(replace(spec, stride=4) if "strided" in attention else spec)
    model.init_weights(0)
    stir(model)
    return model.eval()


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(ids)
    return getattr(found, "logits", found)


def some_ids(length: int = 24) -> torch.Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(1))


def exported(model: GPT, folder, name: str = "gpt2:300"):
    export_gpt2(model, folder, tokenizer=name)
    return hugging_face().AutoModelForCausalLM.from_pretrained(folder).eval()


# -------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("attention", "n_layer", "band", "kind"),
    [
        ("dense", 3, 5, "GPT2LMHeadModel"),
        ("alternating", 3, 5, "GPTNeoForCausalLM"),
        ("alternating", 2, 1, "GPTNeoForCausalLM"),
        ("alternating", 1, 23, "GPTNeoForCausalLM"),
        ("dense,banded,banded", 4, 5, "GPTNeoForCausalLM"),
        ("alternating", 2, 24, "GPT2LMHeadModel"),  # the band is the context: there is none
    ],
)
def test_an_exported_model_has_our_logits(tmp_path, attention, n_layer, band, kind):
    ours = make(attention, n_layer=n_layer, band=band)
    theirs = exported(ours, tmp_path / "out")
    assert type(theirs).__name__ == kind
    assert theirs.dtype == torch.float32
    expected = logits(ours, some_ids())
    assert expected.std() > 0.3
    torch.testing.assert_close(logits(theirs, some_ids()), expected, atol=1e-5, rtol=1e-5)
    assert theirs.num_parameters() <= sum(p.numel() for p in ours.parameters())
    back = import_gpt2(tmp_path / "out")
    torch.testing.assert_close(logits(back, some_ids()), expected, atol=1e-5, rtol=1e-5)
    if kind == "GPT2LMHeadModel":
        for (name, a), (_, b) in zip(ours.named_parameters(), back.named_parameters(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize(("attention", "kind"), [("dense", "GPT2LMHeadModel"), ("alternating", "GPTNeoForCausalLM")])
def test_the_multipliers_of_mup_go_into_the_weights(tmp_path, attention, kind):
    plain = make(attention)
    ours = GPT(replace(plain.spec, mup_base_width=12, mup_base_d_head=6))
    ours.load_state_dict(plain.state_dict())
    theirs = exported(ours, tmp_path / "out")
    assert type(theirs).__name__ == kind
    expected = logits(ours, some_ids())
    assert (expected - logits(plain, some_ids())).abs().max() > 0.3
    torch.testing.assert_close(logits(theirs, some_ids()), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(import_gpt2(tmp_path / "out"), some_ids()), expected, atol=1e-5, rtol=1e-5)


def saved(kind: str, folder, save=None, **changes):
    """A random model of transformers in a folder."""
    transformers = hugging_face()
    if kind == "gpt2":
        shape = {"n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 2}
        config, cls = transformers.GPT2Config, transformers.GPT2LMHeadModel
    else:
        shape = {"max_position_embeddings": 24, "hidden_size": 32, "num_layers": 3, "num_heads": 2}
        shape |= {"window_size": 5, "attention_types": [[["global", "local"], 1], [["global"], 1]]}
        config, cls = transformers.GPTNeoConfig, transformers.GPTNeoForCausalLM
    ends = {"bos_token_id": END, "eos_token_id": END}
    model = cls(config(vocab_size=VOCAB, activation_function=ACTIVATION, **ends, **{**shape, **changes})).eval()
    stir(model)
    model.save_pretrained(folder, **(save or {}))
    return model


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo"])
@pytest.mark.parametrize("save", [{}, {"max_shard_size": "30KB"}])
def test_an_imported_model_has_their_logits(tmp_path, kind, save):
    theirs = saved(kind, tmp_path, save)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == bool(save)
    ours = import_gpt2(tmp_path)
    assert ours.spec.attention == ("dense" if kind == "gpt2" else "dense,banded")
    expected = logits(theirs, some_ids())
    torch.testing.assert_close(logits(ours, some_ids()), expected, atol=1e-5, rtol=1e-5)


def test_a_layer_norms_output_carries_a_constant_whatever_its_weight():
    """What the layout of banded models rests on, at GPT-3's width and with biases far larger than trained ones."""
    spec = GPTSpec(n_ctx=4, vocab_size=8, n_layer=2, d_model=768, n_head=12, d_head=64, band=2)
    model = GPT(spec)
    model.init_weights(0)
    with torch.no_grad():
        model.blocks["0"].attention.qkv.bias.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
        model.blocks["0"].norm1.bias.normal_(std=2.0, generator=torch.Generator().manual_seed(1))
        model.blocks["0"].norm1.weight[::7] = 0.0
    from gpt3core.interop import gpt_neo

    weights = {name: p.detach() for name, p in model.named_parameters()}
    folded = gpt_neo.to_layout(weights, spec)
    x = torch.randn(5, 768, generator=torch.Generator().manual_seed(2))
    attention = model.blocks["0"].attention
    with torch.no_grad():
        q, k, v = gpt2.by_kind(attention.qkv(model.blocks["0"].norm1(x)).T, 64)
        normed = torch.nn.functional.layer_norm(x, (768,), torch.ones(768), torch.ones(768))
        for name, expected in (("q_proj", q / 8), ("k_proj", k), ("v_proj", v)):
            found = normed @ folded[f"h.0.attn.attention.{name}.weight"].float().T
            torch.testing.assert_close(found, expected.T, atol=2e-5, rtol=1e-5)


# --------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize("attention", ["dense", "alternating"])
def test_texts_are_those_of_their_generate(tmp_path, attention):
    ours = make(attention)
    with torch.no_grad():
        ours.positions.weight *= 5  # or it says one word for ever
    theirs = exported(ours, tmp_path / "out")
    prompt = [7, 80, 200, 13, 5]
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": END}

    def generated(**more):
        return theirs.generate(torch.tensor([prompt]), **options, **more)[:, len(prompt) :].tolist()

    (greedy,) = generated()
    assert complete(ours, [prompt], tokens=12, choose=Sampler(Sampling(temperature=0)))[0].tokens == greedy
    assert len(set(greedy)) > 3
    # ends of text that the search may meet: what is likely after two tokens
    ended = set()
    for end in logits(ours, torch.tensor([prompt + greedy[:2]]))[0, -1].topk(5).indices.tolist():
        found = beam_search(ours, prompt, tokens=12, end=end)
        searched = generated(
            num_beams=4, num_return_sequences=4, length_penalty=0.6, early_stopping=True, eos_token_id=end
        )
        cut = [row[: row.index(end)] if end in row else row for row in searched]
        assert [list(one.tokens) for one in found] == cut
        ended |= {one.ended for one in found}
    assert ended == {"end of text", "tokens"}


# ----------------------------------------------------------------------------------------------------------- tokenizer

TEXTS = [
    "",
    "The king's men weren't there; they'd gone, I'm told, at 10:45.",
    "  two  spaces,\ttabs\n\nand lines \n ",
    "naïve café — “quotes” … ½ ② Ⅷ ٣ ५",
    "Ελληνικά, русский, 中文字符, 日本語のテキスト, עברית, العربية",
    "👩‍👩‍👧‍👦 🇳🇱 e\u0301 \u200b\ufeff\u00a0\u2028x\u3000",
    "\x00\x1b[31m\x7f\ufffd \U0010ffff",
    "<|endoftext|>",
    "one<|endoftext|> two <|endoftext|><|endoftext|>",
    "<|endoftext <|endoftext|>",
    "def f(x):\n    return {**x, 'a': [1, 2]}  # 3.14e-10\r\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 3,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
]


@pytest.mark.parametrize("name", ["gpt2:300", "gpt2:1024", "gpt2"])
def test_token_ids_are_those_of_their_tokenizer(tmp_path, name, tales):
    from gpt3core.interop import tokenizers

    for file, content in tokenizers.files(name, 24).items():
        (tmp_path / file).write_bytes(content)
    theirs, ours = hugging_face().AutoTokenizer.from_pretrained(tmp_path), tokenizer.load(name)
    rng = torch.Generator().manual_seed(0)
    noise = ["".join(map(chr, torch.randint(1, 0xD7FF, (60,), generator=rng).tolist())) for _ in range(20)]
    texts = [*TEXTS, *noise, tales.read_text()[:20_000]]
    for text, ids in zip(texts, theirs(texts)["input_ids"], strict=True):
        assert ids == ours.encode(text, allowed_special="all"), text[:60]
        assert theirs.decode(ids) == ours.decode(ids)
    assert len(theirs) == theirs.vocab_size == ours.n_vocab
    assert theirs.eos_token_id == theirs.bos_token_id == ours.eot_token
    assert theirs.model_max_length == 24


@pytest.mark.parametrize("name", ["gpt2:1024", "gpt2"])
def test_the_older_pair_of_files_says_the_same(tmp_path, name):
    from tokenizers import ByteLevelBPETokenizer

    from gpt3core.interop import tokenizers

    for file, content in tokenizers.files(name, 24).items():
        (tmp_path / file).write_bytes(content)
    pair = ByteLevelBPETokenizer.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    for text in TEXTS:
        if "endoftext|>" not in text:
            assert pair.encode(text).ids == tokenizer.load(name).encode_ordinary(text)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activation_function": "relu"}, "activation_function='relu', and this model is computed with"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        ({"n_inner": 100}, "n_inner=100"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"n_head": 3}, "32 and 3 heads, which do not divide it"),
        ({"n_layer": 0}, "n_layer=0: a whole number of 1 or more"),
        ({"n_embd": None}, "n_embd=None"),
        ({"n_positions": True}, "n_positions=True"),
        ({"model_type": "llama"}, "model_type='llama': gpt2 and gpt_neo can be read"),
        ({"n_layer": 3}, r"lacks h\.2\.ln_1\.weight \(1 tensor and 11 more of 40\)"),
        ({"n_layer": 1}, r"has h\.1\.attn\.c_attn\.bias \(1 tensor and 11 more\), which its config"),
        ({"n_positions": 25}, r"wpe\.weight of shape \(24, 32\), its config.json means \(25, 32\)"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ],
)
def test_a_model_that_ours_is_not_is_refused(tmp_path, change, sentence):
    export_gpt2(make("dense", n_layer=2), tmp_path / "out", tokenizer="gpt2:300")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((UsageError, StoreError, ValueError), match=sentence) as caught:
        import_gpt2(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"attention_types": [[["global", "near"], 1], [["global"], 1]]}, "attention_types=.*near"),
        ({"attention_types": [[["local"], 2]]}, "3 layers and attention_types of 2"),
        ({"attention_types": 7}, "attention_types=7: a list of"),
        ({"window_size": 0}, "window_size=0"),
    ],
)
def test_a_gpt_neo_that_ours_is_not_is_refused(tmp_path, change, sentence):
    export_gpt2(make("alternating"), tmp_path / "out", tokenizer="gpt2:300")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=sentence):
        import_gpt2(tmp_path / "out")


def test_damaged_and_missing_files_are_one_sentence(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(StoreError, match=r"config\.json is not there: name a folder"):
        import_gpt2(folder)
    export_gpt2(make("dense", n_layer=1), folder, tokenizer="gpt2:300")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(StoreError, match="is not a safetensors file"):
        import_gpt2(folder)
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(StoreError, match=r"pytorch_model\.bin is a pickle, which is never read"):
        import_gpt2(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": "../x.safetensors"}}))
    with pytest.raises(StoreError, match="has no weight_map of files beside it"):
        import_gpt2(folder)


def test_an_untied_head_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    theirs = saved("gpt2", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = theirs.transformer.wte.weight.detach().clone()
    save_file(tensors, path)
    import_gpt2(tmp_path)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, path)
    with pytest.raises(StoreError, match=r"lm_head\.weight that is not its wte\.weight"):
        import_gpt2(tmp_path)


def test_a_shape_that_no_layout_has_is_refused(tmp_path):
    strided = make("dense,strided")
    with pytest.raises(UsageError, match="a model with strided layers has no layout"):
        export_gpt2(strided, tmp_path / "out", tokenizer="gpt2:300")
    wide = GPTSpec(n_ctx=8, vocab_size=VOCAB, n_layer=1, d_model=32, n_head=3, d_head=16)
    with pytest.raises(UsageError, match="3 heads of 16 are 48 wide and the model 32"):
        export_gpt2(GPT(wide), tmp_path / "out", tokenizer="gpt2:300")
    assert not (tmp_path / "out").exists()

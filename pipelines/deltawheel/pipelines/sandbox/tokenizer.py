"""The sandbox's tokenizer: one token per character, and a chat template that adds no words.

The template concatenates the messages' contents and ends an assistant's message with the end
token. So a chat with one user message ``17+8*3=`` is exactly the training prompt, for vLLM's chat
endpoint as for TRL's conversational rows, and a prompt is always a prefix of prompt plus answer.
"""

from typing import TYPE_CHECKING, Final

from deltawheel.infra.sandbox.grammar import OPERATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD: Final = "<pad>"
END: Final = "<end>"
UNKNOWN: Final = "<unk>"
SPECIALS: Final = (PAD, END, UNKNOWN)
CHARACTERS: Final = f"0123456789{''.join(OPERATIONS)}=;A:"
VOCABULARY: Final = (*SPECIALS, *CHARACTERS)
MAX_TOKENS: Final = 128

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Make the tokenizer: 22 tokens, of which three are special.

    Characters outside the alphabet become the unknown token, so any text can be sent to the model.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer

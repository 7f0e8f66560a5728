"""Masks the secrets within a text, and nothing else of it: in addresses, headers, forms, commands, JSON, XML, prose."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache

from airflow_skyvern.secret_values.forms import (
    COOKIES,
    MASK,
    SCHEME,
    is_bare_password,
    is_bearer_token,
    is_credentials_base64,
    is_data,
    is_made_up,
    is_mixed,
    is_one_time_code,
    is_password,
    is_random,
    is_recovery_code,
)
from airflow_skyvern.secret_values.names import Place, is_header_of_secret, is_secret, kind_of, scheme_holds_secret
from airflow_skyvern.secret_values.structures import Walk

QUERY_STARTS = ("?", "&", "&amp;", "&#38;", "&#x26;", "#", ";")
ESCAPED_AND = "u0026"
"""The text before a name in the query of an address, also within HTML and JSON."""

ASSIGNMENT = r"(?<![\w.%\[\]$-])(?P<name>[\w.%\[\]$-]{1,64})=(?P<value>[^&;#\s\"'<>\\]+)"
"""``name=value``, in the query of an address or in the body of a form."""

IN_CONNECTION = r"(?i)(?<![\w-])(?P<name>pwd|password|account_?key|shared_?access_?key|shared_?secret)\s?=\s?(?P<value>[^;\"'\r\n&<>]+)(?=;)"
"""``Password=p@ss word;``, in the connection string of a database or a store."""

QUOTED_ASSIGNMENT = (
    r"(?<![\w.-])(?P<name>[\w.\[\]-]{1,64})[\"']?\]?(?::\s?[A-Za-z][\w.|\[\] ]{0,30})?\s{0,8}(?:=>|:=|==?)\s{0,8}"
    r"(?P<quote>\\{0,3}[\"'`])(?P<value>(?:(?!(?P=quote))[^\r\n]){1,4096})(?P=quote)"
)
"""``name = "value"``: code, configuration, attributes of HTML."""

LOOSE_ASSIGNMENT = (
    r"(?m)(?<![\w.-])(?P<name>[\w.-]{1,64})[ \t]{1,8}=[ \t]{1,8}(?P<value>[^\s\"'`=;,<>{}()]+)(?=[ \t]*[;,]?[ \t]*$)"
)
"""A line ``name = value`` of a configuration."""

ENCODED = r"(?i)(?<=%3f|%26|%23)(?P<name>[\w.-]{1,64})%3d(?P<value>(?:(?!%26|%23)[^&\s\"'<>\\])+)"
"""``name=value`` in an address within the query of another one."""

QUOTED = (
    r"(?P<quote>\\{0,3}[\"'])(?P<name>[^\s\"'\\:][^\"'\\\r\n:]{0,63})(?P=quote)\s{0,4}:\s{0,4}(?P<mark>\\{0,3}[\"'])"
    r"(?P<value>(?:(?!(?P=mark))(?:\\.|[^\\]))+)"
)
"""``"name": "value"``: JSON, or a mapping as Python prints it, within a text."""

QUOTED_ENTRY = (
    r"(?i)(?P<quote>\\{0,3}[\"'])(?:name|key|header|header_?name|field|param|parameter)(?P=quote)\s{0,4}:\s{0,8}(?P<mark>\\{0,3}[\"'])"
    r"(?P<name>[\w.-]{1,64})(?P=mark)\s{0,4},\s{0,64}(?P=quote)(?:value|val|header_?value|content|data)(?P=quote)\s{0,4}:\s{0,8}"
    r"(?P<last>\\{0,3}[\"'])(?P<value>(?:(?!(?P=last))(?:\\.|[^\\]))+)"
)
"""``{"name": "X-Api-Key", "value": "…"}`` within a text."""

QUOTED_PAIR = (
    r"[\[(]\s{0,8}(?P<quote>\\{0,3}[\"'])(?P<name>[\w.-]{1,64})(?P=quote)\s{0,4},\s{0,8}(?P<mark>\\{0,3}[\"'])"
    r"(?P<value>(?:(?!(?P=mark))(?:\\.|[^\\]))+)(?P=mark)\s{0,8}[\])]"
)
"""``["X-Api-Key", "…"]`` within a text."""

JSON_TEXT = r'"(?:[^"\\]|\\.)*"'

TAG = r"<[A-Za-z][\w:.-]{0,40}\s(?P<attributes>[^<>]{1,2000})>"
ATTRIBUTE = r"(?P<name>[\w:-]{1,40})\s{0,2}=\s{0,2}(?P<quote>\\?[\"'])(?P<value>[^\"'<>\\]{0,4096})"
ELEMENT = r"<(?:[\w-]{1,40}:)?(?P<name>[\w.-]{1,64})(?:\s[^<>]{0,500})?>\s{0,40}(?P<value>[^<>]{1,4096}?)\s{0,40}</"

NAMED_ELEMENT = (
    r"<[A-Za-z][\w:.-]{0,40}\s(?:[^<>]{0,200}?\s)?(?:key|name|id)\s?=\s?[\"'](?P<name>[\w.-]{1,64})[\"'][^<>]{0,200}>"
    r"(?P<value>[^<>]{1,4096})</"
)
"""``<entry key="password">…</entry>``."""

FORM_PART = r"name=\"?(?P<name>[\w.\[\]-]{1,64})\"?(?:\r?\n[^\r\n]{1,200}){0,3}\r?\n\r?\n(?P<value>[^\r\n]{1,4096})"
"""A part of a form, as browsers send them."""

AUTH_CALL = (
    r"(?i)(?:\b(?:auth|login|log_in|connect|credentials)\w{0,20}\s?[=(]\s?\(?\s?[\"'][^\"'\r\n]{0,128}[\"'],\s{0,4}"
    r"|\b\w{0,20}(?:password|passwd|secret|token|api_?key)\w{0,10}\(\s{0,4})"
    r"(?P<quote>[\"'])(?P<value>[^\"'\r\n]{3,256})(?P=quote)"
)
"""``auth=("user", "password")``."""

YAML_ENTRY = r"(?i)\bname:[ \t]{0,8}[\"']?(?P<name>[\w.-]{1,64})[\"']?[ \t]*\r?\n[ \t-]{0,40}value:[ \t]{0,8}[\"']?(?P<value>[^\s\"'#]+)"

HEADER = (
    r"(?im)(?<![\w.-])(?P<name>(?:proxy-)?authorization|(?:set-)?cookie2?|(?:[a-z][\w]{0,30}-){0,5}(?:api-?key|apikey|token|"
    r"secret|signature|auth|session|password|key))(?P<between>[ \t]{0,4}:[ \t]{0,4})(?P<value>[^\s\"'}\]<>\\][^\r\n\"'}\]<>\\]*)"
)
"""A line of a request's headers within a text."""

TOKENS = r"""
    gh[pousr]_\w{20,} | github_pat_\w{20,} | gl(?:pat|dt|rt|ptt|cbt|soat|ft|agent|oas)-[\w-]{16,} | xox[abeoprs]-[\w-]{10,}
  | xapp-\d-[\w-]{10,} | (?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16} | AIza[\w-]{30,} | ya29\.[\w-]{20,} | 1//0[\w-]{20,} | GOCSPX-[\w-]{20,}
  | (?:sk|rk|pk)[-_](?:live|test|proj|ant|or|prod)[-_][\w-]{12,} | sk-[\w-]{32,} | whsec_[\w+/=]{20,} | SG\.[\w-]{16,}\.[\w-]{16,}
  | npm_\w{30,} | pypi-[\w-]{40,} | hf_\w{24,} | gsk_\w{30,} | r8_\w{30,} | dapi[0-9a-f]{32}(?:-\d)? | do[opr]_v1_[0-9a-f]{40,}
  | shp(?:at|ca|pa|ss)_[0-9a-fA-F]{24,} | sq0(?:atp|csp)-[\w-]{20,} | key-[0-9a-f]{32} | [0-9a-f]{32}-us\d{1,2} | lin_api_\w{30,}
  | ntn_\w{30,} | secret_\w{40,} | pat[A-Za-z0-9]{14}\.[0-9a-f]{40,} | ATATT3[\w=-]{30,} | hv[sbr]\.[\w-]{20,} | dp\.(?:pt|st|ct|sa)\.[\w.-]{20,}
  | figd_[\w-]{20,} | PMAK-[\w-]{30,} | NRAK-\w{20,} | sntry[su]_[\w=-]{20,} | gl(?:sa|c)_[\w=-]{20,} | dckr_pat_[\w-]{20,}
  | pul-[0-9a-f]{40} | sbp_[0-9a-f]{40} | rubygems_[0-9a-f]{40,} | EAA[A-Za-z0-9]{40,} | AGE-SECRET-KEY-1\w{50,}
  | phc_\w{30,} | xkeysib-[0-9a-f]{40,}-\w+ | re_\w{8}_\w{16,} | tskey-\w+-[\w-]{16,} | atlasv1\.[\w-]{40,} | CFPAT-[\w-]{30,}
  | \d{8,10}:AA[\w-]{33}
"""

ALWAYS = rf"""(?xs)
    (?P<user> (?<=://) [^/\s:@"'<>]{{0,256}} : ) (?: (?!\d{{1,5}}[?\#/]) [^/\s"'<>]{{1,512}} (?=@[\w.\[%-]) )
  | (?<![\w.-]) eyJ[\w-]{{8,}} \. [\w-]{{8,}} (?:\.[\w-]*){{0,3}}
  | (?<![\w-]) (?: {TOKENS} ) (?![\w])
  | (?P<hook> hooks\.slack\.com/(?:services|workflows|triggers)/ | discord(?:app)?\.com/api/webhooks/\d+/
      | \.webhook\.office\.com/webhookb2/ | outlook\.office\.com/webhook/ | api\.telegram\.org/bot ) [\w@:/-]{{16,}}
  | (?P<private> /private- ) [0-9a-f]{{32}} (?=/)
  | -----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY(?:[ ]BLOCK)?-----  .*? (?: -----END[ ][A-Z0-9 ]*PRIVATE[ ]KEY(?:[ ]BLOCK)?----- | \Z)
"""
"""Texts whose form alone shows that they are secrets, in any place."""

SIGNS = tuple(
    "://;jdbc:;eyJ;-----BEGIN;gh;gl;xox;xapp-;AKIA;ASIA;ABIA;ACCA;AIza;ya29;1//0;GOCSPX;sk-;sk_;rk-;rk_;pk_;pk-;whsec_;SG.;npm_;pypi-;hf_;gsk_;"
    "r8_;dapi;_v1_;shp;sq0;key-;-us;lin_api;ntn_;secret_;pat;ATATT3;hvs.;hvb.;hvr.;dp.;figd_;PMAK;NRAK;sntry;dckr_;pul-;sbp_;"
    "rubygems_;EAA;AGE-SECRET;phc_;xkeysib;re_;tskey;atlasv1;CFPAT;:AA;slack.com;discord;office.com;telegram;/private-".split(
        ";"
    )
)
"""One of these is in every text that :data:`ALWAYS` matches; to look for them first takes a tenth of the time."""

DATABASE = r"(?i)(?P<before>(?<![\w])(?!https?:)[a-z][a-z0-9+.-]{1,30}://[^/\s:@\"'<>]{0,256}:)(?P<value>(?!\d{1,5}/)[^\s\"'<>@]{1,256}(?:@[^\s\"'<>@/]{1,128})*)(?=@[\w.-]+(?::\d+)?(?:[/,?\s]|$))"
"""A password with a slash in it, which only addresses that are not web pages can have there."""

TOKEN_AS_USER = r"(?<=://)(?P<value>[^/\s:@\"'<>]{16,512})(?=@[\w.-]+\.)"
ORACLE = r"(?i)(?P<before>jdbc:oracle:\w+:[\w$#]+/)(?P<value>[^@\s\"']{1,256})(?=@)"

SCHEME_IN_TEXT = r"(?i)(?<![\w-])(?P<scheme>bearer|basic|token) {1,4}(?P<value>[\w.~+/-]{6,}={0,2})"

COMMAND = r"(?m)(?P<before>(?:^|\s)(?:-u|--user|--proxy-user|-U|--auth|-a|--basic-auth)[ =]{0,2}[\"']?[^\s:\"']{1,128}:)(?P<value>[^\s\"']+)"
"""``curl -u user:password``."""

OPTION = r"(?<![\w-])--(?P<name>[a-z][\w-]{1,40})[ =](?P<quote>[\"']?)(?P<value>[^\s\"']{3,})"
COOKIE_OPTION = r"(?<!\S)(?:-b|--cookie)[ =]{0,1}(?P<quote>[\"']?)(?P<value>[\w.-]{1,64}=[^\"'\s]+(?:;\s?[\w.-]{1,64}=[^\"'\s]+)*)"
PASSWORD_OPTION = (
    r"(?P<before>\b(?:sshpass\s+-p|redis-cli\b[^\n|]{0,200}?\s-a|mysql\w*\b[^\n|]{0,200}?\s-p(?=\S)|docker\s+login\b[^\n|]{0,200}?\s-p"
    r"|ldap\w+\b[^\n|]{0,200}?\s-w|openssl\s+\w+\b[^\n|]{0,200}?\s-(?:k|pass(?:in|out)?\s+pass:)|az\s+login\b[^\n|]{0,200}?\s-p"
    r"|(?:sqlcmd|bcp)\b[^\n|]{0,200}?\s-P|mongo\w*\b[^\n|]{0,200}?\s-p|smbclient\b[^\n|]{0,200}?\s-U\s?[^\s%]{1,64}%"
    r"|(?:7z|7za|rar|zip|unzip)\b[^\n|]{0,200}?\s-[pP]|gpg2?\b[^\n|]{0,200}?\s--passphrase|aws\s+configure\s+set\s+[\w.-]*(?:secret|token)[\w.-]*"
    r"|net\s+use\b[^\n|]{0,100}?\\\\\S{1,200}(?=\s+\S+\s+/user))"
    r"\s{0,2}[\"']?)(?P<value>[^\s\"'-][^\s\"']{2,})"
)
CLIENTS = ("curl", "wget", "http ", "https ")
"""Programs whose option ``-u`` takes a password; for others it may take a group, an image or a time."""

PIPED = r"(?P<before>\b(?:echo|printf)\s{1,4}(?:-n\s{1,4})?[\"']?)(?P<value>[^\s\"'|]{3,256})(?=[\"']?\s{0,4}\|[^\n|]{0,200}--password-stdin)"
TYPED = r"(?P<before>\bsudo\b[^\n|]{0,100}<<<\s{0,4}[\"']?)(?P<value>[^\s\"']{3,256})"
"""The input of a command: ``echo … | docker login --password-stdin``."""

COMMANDS = (
    *CLIENTS,
    "sshpass",
    "redis-cli",
    "mysql",
    "docker",
    "--",
    " -",
    "ldap",
    "smbclient",
    "net use",
    "aws ",
    "<<<",
)

PGPASS = (
    r"(?m)^(?P<before>(?:\*|[A-Za-z][\w.-]{0,250}|\d{1,3}(?:\.\d{1,3}){3}):(?P<port>\d{2,5}|\*):[^\s:]{1,64}:[A-Za-z_*][^\s:]{0,63}:)"
    r"(?P<value>(?:[^\s:\\]|\\.)+)[ \t]*$"
)
"""A line of PostgreSQL's file of passwords: ``host:port:database:user:password``."""

PGPASS_HOST = re.compile(r"localhost:|\*:|[\w-]+\.[\w.-]+:")
POSTGRES_PORTS = ("5432", "5433", "6432", "5439")

YAML_LINE = (
    r"(?m)^[ \t]{0,64}(?:-[ \t]{1,8})?(?P<name>[A-Za-z_][\w.-]{1,63})[ \t]{0,8}:[ \t]{1,8}(?P<quote>[\"']?)"
    r"(?P<value>[^\s\"'#][^\s\"']*(?:[ \t][^\s\"']+){0,7})(?P=quote)[ \t]{0,8}$"
)
YAML_BLOCK = r"(?m)^[ \t]*(?P<name>[A-Za-z_][\w.-]{1,63}):[ \t]*[|>][+-]?[ \t]*\r?\n[ \t]+(?P<value>\S+)[ \t]*$"
"""``smtp_password: "…"``, also with its value on a separate line."""

KUBERNETES_SECRET = re.compile(r"(?m)^[ \t]*kind:[ \t]*[\"']?Secret[\"']?[ \t]*$")
KUBERNETES_DATA = r"(?m)^(?P<indent>[ ]*)(?:data|stringData):[ \t]*\r?\n(?:(?P=indent)[ ]+\S[^\r\n]*(?:\r?\n|\Z))+"
KUBERNETES_ITEM = r"(?m)^(?P<before>[ ]+[\"']?[\w.-]+[\"']?:[ \t]+[\"']?)(?P<value>[^\s\"'|>][^\r\n\"']*)"

COOKIE_JAR = r"(?m)^(?P<before>\S+\t(?:TRUE|FALSE)\t/\S*\t(?:TRUE|FALSE)\t\d+\t[^\t\r\n]+\t)(?P<value>[^\t\r\n]+)"
NETRC = r"(?P<before>\blogin\s{1,8}\S{1,128}\s{1,8}password\s{1,8})(?P<value>\S+)"
SQL = r"(?i)(?P<before>\b(?:identified\s+by|with\s+(?:encrypted\s+)?password|password\s+for\s+\S{1,64}\s+is)\s+[\"'])(?P<value>[^\"'\r\n]+)"

PASSWORD_WORDS = (
    r"passwords?|passwd|pass ?phrase|pass ?code|pwd|pass|pw|passwort|kennwort|contrase(?:ñ|n|\u006e\u0303)as?|contrasenya|mots? de passe|senhas?|"
    r"palavra-passe|clave(?: de acceso)?|wachtwoord|has(?:ł|l)o|l(?:ö|o)senord|salasana|adgangskode|passord|heslo|jelsz(?:ó|o)|(?:ş|s)ifre(?:niz|si|m)?|"
    r"parola(?: d'ordine)?|kata sandi|mật khẩu|пароль|пароля|парола|лозинка|סיסמה|كلمة المرور|密码|密碼|口令|パスワード|비밀번호|รหัสผ่าน|पासवर्ड"
)
KEY_WORDS = (
    r"(?:api|access|secret|private|auth|subscription|account|license api|signing)[ _-]?key|(?:access|refresh|auth|api|bearer|session|id|personal access)?"
    r"[ _-]?token|(?:client|app|shared)?[ _-]?secret|key|api-?schlüssel|clave (?:de )?api|clé (?:d'api|api)|chave (?:de )?api|session[ _-]?id|credentials?"
)
CODE_WORDS = r"(?:totp|otp|2fa|mfa|authenticator)[ _-](?:secret|seed|(?:setup )?key)|(?:recovery|backup)[ -](?:key|code)|otps?|totp|one[- ]?time[- ](?:pass)?(?:code|word)|einmal(?:code|passwort|kennwort)|2fa[- ]code|mfa[- ]code"
SAID = (
    rf"(?i)(?<![a-z0-9_])(?P<word>(?P<password>{PASSWORD_WORDS})|(?P<key>{KEY_WORDS})|(?P<code>{CODE_WORDS}))(?![a-z0-9_])(?:['’]s)?"
    r"(?:[ ]?\([^()\r\n]{0,40}\))?(?:[ ](?:for|of|to|für|von|zu|zum|pour|para|de|do|del|dla|для)[ ][^:=\r\n\"'.]{1,40}?(?=[:=：]|[ ](?:is|ist|lautet|est|es|é|è|jest)\b))?(?P<between>[\"'*`]{0,3}\s{0,3}(?:[:：]|=(?=\s)|=>|->|→|\||–|—|-(?=\s))\*{0,2}\s{0,3}|[ ]{1,2}(?:is|was|ist|lautet|est|es|é|è|jest|är|er|to|on)[: ]{1,3}|[是は为為]|는\s?|은\s?|[ ]{1,2}|[ ]?\r?\n[ ]{0,4})"
    r"(?P<quote>[\"'`*]{0,3})(?P<value>[^\s\"'`<>]{3,256})"
)
"""``password: …``, ``pwd is …`` in a sentence or in a list, in many languages."""

LONGEST_LINE = 2000
"""Characters of a line that names the columns of a table."""

WORD_SIGNS = re.compile(
    r"(?i)pass|pwd|pw|kenn?wort|contrase|mots? de|senha|clave|wacht|has[łl]o|senord|salasana|adgangs|heslo|jelsz|[şs]ifre|parola|sandi|mật|"
    r"парол|лозинка|סיסמה|كلمة|密|口令|パス|비밀|รหัส|पास|key|token|secret|schlüssel|clé|chave|session|credential|otp|one.?time|einmal|[2m]fa"
)

IDENTITY = re.compile(
    r"(?im)^\W{0,6}(user ?(name|id)?|login|log-in|e-?mail|account|benutzer(name)?|konto|usuario|correo|utilisateur|identifiant|"
    r"gebruiker(snaam)?|utente|usuário|пользователь|логин|用户名|ユーザー名?|아이디)\b[^\n:=]{0,12}[:=：]"
)
"""A line with a user's name: then a value called a password on it is one, even if it is a word."""


def masked_text(text: str, found: list[str] | None = None) -> str:
    """
    Mask the secrets within a text, and nothing else of it.

    :param found: Gets each of them.

    These are secret values in the queries of addresses and in form bodies, passwords in addresses, headers such as
    Authorization and Cookie, entries of quoted JSON, XML and configuration, what a sentence calls a password, and what
    shows by its form: bearer tokens, JWTs, private keys.
    """
    masks = _Masks([] if found is None else found)
    if text.lstrip()[:1] in ("{", "["):
        text = masks.json(text)
    if any(sign in text for sign in SIGNS):
        text = masks.by_form(text)
    if "=" in text or "%3" in text:
        text = masks.assignments(text)
    if any(sign in text for sign in ":,<("):
        text = masks.structures(text)
    if " " in text or "\t" in text:
        text = masks.commands(text)
    if "\n" in text:
        text = masks.table(text)
    return masks.sentences(text) if WORD_SIGNS.search(text) else text


def secret_by_form(text: str) -> bool:
    """Return whether a text contains a secret that its form alone reveals, under any name."""
    return any(sign in text for sign in SIGNS) and _Masks([]).by_form(text) != text


class _Search(Walk):
    """Collects secrets recognized by their place, and changes nothing."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def text(self, value: str, name: str, place: Place) -> str:
        if is_secret(name, value, place):
            self.found.append(value)
        return value


class _Masks:
    """Handles each place that may be a secret."""

    def __init__(self, found: list[str]) -> None:
        self._found = found

    def json(self, text: str) -> str:
        """Mask within a JSON text what would be masked in the parsed value."""
        search = _Search()
        try:
            search.walk(json.loads(text))
        except (ValueError, RecursionError):
            return text
        if not search.found:
            return text
        self._found += search.found
        quoted = {
            form for secret in search.found for form in (json.dumps(secret), json.dumps(secret, ensure_ascii=False))
        }
        return _pattern(JSON_TEXT).sub(lambda found: f'"{MASK}"' if found[0] in quoted else found[0], text)

    def by_form(self, text: str) -> str:
        """Mask texts that are secrets in any place."""
        text = _pattern(ALWAYS).sub(self._always, text)
        if "://" in text and "@" in text:
            text = _pattern(DATABASE).sub(self._value, text)
            text = _pattern(TOKEN_AS_USER).sub(self._if(lambda value: is_random(value) or is_mixed(value)), text)
        return _pattern(ORACLE).sub(self._value, text) if "jdbc:oracle" in text else text

    def assignments(self, text: str) -> str:
        """Mask the values of secrets' names."""
        if ";" in text:
            text = _pattern(IN_CONNECTION).sub(self._if(lambda value: not is_data(value)), text)
        text = _pattern(ASSIGNMENT).sub(self._assignment, text)
        if "%3" in text:
            text = _pattern(ENCODED).sub(self._named_in("query"), text)
        if " =" in text:
            text = _pattern(LOOSE_ASSIGNMENT).sub(self._named_in(""), text)
        return _pattern(QUOTED_ASSIGNMENT).sub(self._named_in(""), text) if _has_quote(text) else text

    def structures(self, text: str) -> str:
        """Mask within JSON, XML, YAML and the headers of a request."""
        if _has_quote(text):
            text = _pattern(QUOTED).sub(self._quoted, text)
            text = _pattern(QUOTED_ENTRY).sub(self._named_in("headers"), text)
            text = _pattern(QUOTED_PAIR).sub(self._named_in("entry"), text)
        if "</" in text:
            text = _pattern(ELEMENT).sub(self._named_in(""), text)
            text = _pattern(NAMED_ELEMENT).sub(self._named_in("entry"), text)
        if "form-data" in text:
            text = _pattern(FORM_PART).sub(self._named_in("login"), text)
        if "(" in text:
            text = _pattern(AUTH_CALL).sub(self._if(is_bare_password), text)
        if "<" in text and "=" in text:
            text = _pattern(TAG).sub(self._tag, text)
        if "name:" in text and "value:" in text:
            text = _pattern(YAML_ENTRY).sub(self._named_in("entry"), text)
        if ": " in text or ":\t" in text:
            text = self._yaml(text)
        if text.count(":") >= 4:  # noqa: PLR2004
            text = _pattern(PGPASS).sub(self._pgpass, text)
        return _pattern(HEADER).sub(self._header, text) if ":" in text else text

    def _yaml(self, text: str) -> str:
        """Mask the values of secrets' names, and all that Kubernetes has in an object of the kind Secret."""
        if KUBERNETES_SECRET.search(text):
            text = _pattern(KUBERNETES_DATA).sub(self._kubernetes, text)
        text = _pattern(YAML_LINE).sub(self._yaml_line, text)
        return _pattern(YAML_BLOCK).sub(self._yaml_line, text) if "|" in text or ">" in text else text

    def _kubernetes(self, found: re.Match[str]) -> str:
        return _pattern(KUBERNETES_ITEM).sub(self._if(lambda value: not is_data(value)), found[0])

    def _yaml_line(self, found: re.Match[str]) -> str:
        value = found["value"]
        shown = is_made_up(value) or (is_password(value) and any(map(str.isdigit, value)))
        is_one = is_secret(found["name"], value) and shown
        return self._value(found) if is_one else found[0]

    def _pgpass(self, found: re.Match[str]) -> str:
        value = found["value"]
        known = found["port"] in POSTGRES_PORTS
        is_one = (known and is_password(value)) or (PGPASS_HOST.match(found["before"]) and is_made_up(value))
        return self._value(found) if is_one else found[0]

    def commands(self, text: str) -> str:
        """Mask credentials in commands, in credential files, and after "Bearer"."""
        text = _pattern(SCHEME_IN_TEXT).sub(self._scheme, text)
        if text.startswith("-") or any(command in text for command in COMMANDS):
            of_client = any(client in text for client in CLIENTS)
            text = _pattern(COMMAND).sub(self._if(_is_given if of_client else is_made_up), text)
            text = _pattern(OPTION).sub(self._named_in(""), text)
            if of_client:
                text = _pattern(COOKIE_OPTION).sub(self._value, text)
            for pattern in (PASSWORD_OPTION, PIPED, TYPED):
                text = _pattern(pattern).sub(self._if(lambda value: not is_data(value)), text)
        if "\t/" in text:
            text = _pattern(COOKIE_JAR).sub(self._value, text)
        if "password" in text or " by " in text.lower():
            text = _pattern(NETRC).sub(self._if(lambda value: not is_data(value)), text)
            text = _pattern(SQL).sub(self._if(lambda value: not is_data(value)), text)
        return text

    def sentences(self, text: str) -> str:
        """Mask what a sentence, or a line of a list, calls a password, a key or a token."""
        named = bool(IDENTITY.search(text))
        return _pattern(SAID).sub(lambda found: self._said(found, beside_user=named), text)

    def table(self, text: str) -> str:
        """Mask the columns of secrets in CSV, and in tables of Markdown."""
        first, _, rest = text.lstrip("\ufeff\n").partition("\n")
        delimiter = next((one for one in "\t|;," if one in first), "")
        columns = [column.strip(" \"'\r") for column in first.split(delimiter)] if delimiter else []
        if len(first) > LONGEST_LINE or not any(kind_of(column) for column in columns):
            return text
        lines = [self._row(line, delimiter, columns) for line in rest.split("\n")]
        return text[: len(text) - len(rest)] + "\n".join(lines)

    def _row(self, line: str, delimiter: str, columns: list[str]) -> str:
        cells = line.split(delimiter)
        if len(cells) != len(columns):
            return line
        return delimiter.join(map(self._cell, cells, columns))

    def _cell(self, cell: str, column: str) -> str:
        value = cell.strip(" \"'\r")
        if not is_secret(column, value):
            return cell
        self._found.append(value)
        return cell.replace(value, MASK)

    def _value(self, found: re.Match[str]) -> str:
        """Mask the value, and leave the text around it."""
        if found["value"] == MASK:
            return found[0]
        self._found.append(found["value"])
        start, end = (place - found.start() for place in found.span("value"))
        return found[0][:start] + MASK + found[0][end:]

    def _if(self, is_one: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
        return lambda found: self._value(found) if is_one(found["value"]) else found[0]

    def _named_in(self, place: Place) -> Callable[[re.Match[str]], str]:
        return lambda found: self._value(found) if is_secret(found["name"], found["value"], place) else found[0]

    def _always(self, found: re.Match[str]) -> str:
        """Mask a password in an address, and keep the text before it."""
        before = found["user"] or found["hook"] or found["private"] or ""
        user = before.removesuffix(":")
        self._found.append(found[0][len(before) :])
        if found["user"] and is_random(user):  # some services take their key as the name of the user
            self._found.append(user)
            before = f"{MASK}:"
        return before + MASK

    def _assignment(self, found: re.Match[str]) -> str:
        """Mask the value of a name, some names only in the query of an address."""
        name = re.sub(r"%5B|%5D|[\[\]]", "_", found["name"]).strip("_")
        in_query = found.string.endswith(QUERY_STARTS, max(0, found.start() - 6), found.start())
        if name.startswith(ESCAPED_AND):  # an ampersand as JSON may have it
            name, in_query = name.removeprefix(ESCAPED_AND), True
        return self._value(found) if is_secret(name, found["value"], "query" if in_query else "") else found[0]

    def _quoted(self, found: re.Match[str]) -> str:
        """Mask the value of a name in JSON, or a secret within it: JSON may hold JSON."""
        if is_secret(found["name"], found["value"], "entry"):
            return self._value(found)
        if found["mark"] not in found["value"] and "\\" not in found["value"]:
            return found[0]
        start = found.start("value") - found.start()
        return found[0][:start] + _pattern(QUOTED).sub(self._quoted, found["value"])

    def _header(self, found: re.Match[str]) -> str:
        name, value = found["name"], found["value"].strip()
        if not is_header_of_secret(name) or is_data(value) or value.startswith(MASK):
            return found[0]
        lower = name.lower()
        if "cookie" in lower:
            secret = bool(COOKIES.match(value))
        elif lower.endswith("authorization"):
            secret = (bool(SCHEME.match(value)) and scheme_holds_secret(value)) or is_mixed(value)
            secret = secret or bool(re.fullmatch(r"(?i)(?:bearer|token) {1,4}(?=\S*[a-z])(?=\S*\d)\S{6,}", value))
        else:
            secret = " " not in value and "-" in name and (is_password(value) or is_random(value))
        return self._value(found) if secret else found[0]

    def _tag(self, found: re.Match[str]) -> str:
        """Mask the value of a field of a form, or of an entry of a configuration, in HTML or XML."""
        attributes = list(_pattern(ATTRIBUTE).finditer(found["attributes"]))
        given = {one["name"].lower(): one for one in attributes}
        target = given.get("value") or given.get("content")
        name = next((given[key]["value"] for key in ("name", "key", "id", "property") if key in given), "")
        is_password_field = "type" in given and given["type"]["value"].lower() == "password"
        if (
            target is None
            or not target["value"]
            or not (is_password_field or is_secret(name, target["value"], "entry"))
        ):
            return found[0]
        if is_data(target["value"]):
            return found[0]
        self._found.append(target["value"])
        offset = found.start("attributes") - found.start()
        start, end = (place + offset for place in target.span("value"))
        return found[0][:start] + MASK + found[0][end:]

    def _scheme(self, found: re.Match[str]) -> str:
        """Mask credentials, and leave "basic authentication", "Bearer bonds" and their numbers."""
        is_one = {"basic": is_credentials_base64, "token": _is_token}.get(found["scheme"].lower(), is_bearer_token)
        return self._value(found) if is_one(found["value"]) and not is_data(found["value"]) else found[0]

    def _said(self, found: re.Match[str], *, beside_user: bool) -> str:
        value = found["value"].rstrip(".,;:?)]}*|" if not found["quote"] else "")
        if not _is_said(found, value, beside_user=beside_user):
            return found[0]
        self._found.append(value)
        start = found.start("value") - found.start()
        return found[0][:start] + MASK + found[0][start + len(value) :]


def _is_said(found: re.Match[str], value: str, *, beside_user: bool) -> bool:
    if value.startswith((MASK, "//", "http")) or is_data(value):
        return False
    between = found["between"].strip().removeprefix("to").removeprefix("on")
    if found["code"]:
        return bool(between) and (is_one_time_code(value) or is_mixed(value) or is_recovery_code(value))
    if found["key"]:
        return is_random(value) or (bool(between) and is_mixed(value) and len(value) >= 8)  # noqa: PLR2004
    if not (between or found["quote"]):
        return (is_mixed if found["word"].lower() in ("pass", "pw") else is_bare_password)(value)
    return is_mixed(value) or _is_password_said(found, value, beside_user)


def _is_password_said(found: re.Match[str], value: str, beside_user: bool) -> bool:  # noqa: FBT001  not an option
    """Return whether a password stands after a colon or a verb; the words pass and pw mean other things, too."""
    if found["word"].lower() == "pass" and not beside_user:
        return False
    says = found["between"].strip() not in ("|", "–", "—")
    if value.isdigit():
        return says and is_password(value) and _is_alone(found, value)
    if is_password(value):
        return True
    return says and ((beside_user and _is_alone(found, value)) or (len(value) >= 4 and _is_quoted(found)))  # noqa: PLR2004


def _is_alone(found: re.Match[str], value: str) -> bool:
    """Return whether a value ends its line: further words would make it part of a sentence."""
    rest = found.string[found.start("value") + len(value) : found.end("value") + 24]
    return not rest.split("\n")[0].strip(" \t\r,;.*\"'`|)")


def _is_quoted(found: re.Match[str]) -> bool:
    """Return whether the quote that begins a value ends it, too: one word, and not a sentence."""
    quote = found["quote"]
    return bool(quote) and found.string.startswith(quote[::-1], found.end("value"))


def _is_given(value: str) -> bool:
    """Return whether the text after a user's name and a colon, in an option for both, is a password."""
    return len(value) > 2 and not value.startswith("/")  # noqa: PLR2004  of a path


def _is_token(value: str) -> bool:
    return is_random(value) or (is_bearer_token(value) and not value.isalpha())


def _has_quote(text: str) -> bool:
    return '"' in text or "'" in text or "`" in text


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compile at first use: this module is loaded when DAGs are parsed."""
    return re.compile(text, re.DOTALL)

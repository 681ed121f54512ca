"""The dialect of the federal register of the insured (ФЕРЗЛ): SOAP 1.1, service mpiPersonInfo.

Who fits is asked by findPersonsByPersCriteria, page by page; then the policies of each by
getPersonData. Every request shows a token; one that is refused is renewed once. Answers are read by
the names of their elements, whatever stands between them: editions differ in that. What its dates
mean: docs/domain.md 7.1.
"""

import asyncio
import re
from datetime import date
from typing import Annotated, Final, TypeVar

import msgspec
from lxml import etree

from connectors.partners.tfoms.dialect import KINDS, PERSONS_MAX, answer_of, sound
from connectors.partners.tfoms.token import AskedToken, FileToken, Token
from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import soap, xml
from connectors.runtime.partner.partner import Partner, PartnerSettings, Unauthorised
from proto import schemas
from proto.client import Reject, Retry
from proto.configuration.declared import SecretFile
from proto.exits import StartError
from proto.identifiers import new_id
from proto.note import coded
from proto.pattern import exactly
from proto.wording import text

TYPES: Final = "http://ffoms.ru/types/"
PAGE: Final = 10
# An error of the register itself, which it asks to repeat; others are about the question.
PASSING: Final = frozenset({"INTERNAL_SERVICE_ERROR"})
_NOT_A_CODE: Final = re.compile(r"[^A-Za-z0-9_.-]")


class FerzlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.tfoms.ferzl]. `edition` is in the names of the service's types; `territory` is
    the ОКАТО of the region (5 digits). The token is in `token_file`, which somebody else renews,
    or is asked for at `token`, the address and credentials of the endpoint."""

    edition: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]+(\.[0-9]+)*"))] = "24.1.2"
    territory: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{5}"))]
    token_file: SecretFile | None = None
    token: PartnerSettings | None = None


# -- what is read of the answers ----------------------------------------------------------------


class _Error(msgspec.Struct, frozen=True):
    code: str = ""


class _Errors(msgspec.Struct, frozen=True):
    errorItem: list[_Error] = []


class _Page(msgspec.Struct, frozen=True):
    count: int = 0


class _Short(msgspec.Struct, frozen=True):
    enp: str = ""
    oip: str = ""


class _Persons(msgspec.Struct, frozen=True):
    pagination: _Page = _Page()
    personDataShortItem: list[_Short] = []


class _Found(msgspec.Struct, frozen=True):
    persons: _Persons = _Persons()
    errors: _Errors = _Errors()


class _Policy(msgspec.Struct, frozen=True):
    enp: str = ""
    pcyType: str = ""
    pcyNum: str = ""
    pcyDateB: date | None = None
    pcyDateT: date | None = None
    insurCode: str = ""

    def holds(self, day: date) -> bool:
        return (self.pcyDateB or date.min) <= day <= (self.pcyDateT or date.max)


class _Policies(msgspec.Struct, frozen=True):
    policyItems: list[_Policy] = []


class _Attachment(msgspec.Struct, frozen=True):
    moCode: str = ""
    dateAttachB: date | None = None


class _Attachments(msgspec.Struct, frozen=True):
    attachItems: list[_Attachment] = []


class _Data(msgspec.Struct, frozen=True):
    policy: _Policies = _Policies()
    attach: _Attachments = _Attachments()


class _Got(msgspec.Struct, frozen=True):
    pd: _Data = _Data()
    errors: _Errors = _Errors()


Shape = TypeVar("Shape", _Found, _Got)


# -- asking -------------------------------------------------------------------------------------


class Ferzl:
    """See `connectors.partners.tfoms.dialect.Dialect`."""

    def __init__(self, name: str, partner: Partner, settings: FerzlSettings) -> None:
        """Raises StartError."""
        self._partner = partner
        self._territory = settings.territory
        self._m = f"{{{TYPES}{settings.edition}/mpiPersonInfoSchema}}"
        self._c = f"{{{TYPES}{settings.edition}/commonTypes}}"
        self._token = _token(name, settings)

    async def close(self) -> None:
        """Let go of the endpoint of tokens."""
        await self._token.close()

    async def insured(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer:
        """Ask whose policy it is: whoever has none on that date is left out."""
        found = await self._find(asked)
        persons = await asyncio.gather(*(self._policy(one, asked.on_date) for one in found))
        return sound(answer_of([one for one in persons if one is not None]))

    async def _find(self, asked: schemas.InsuranceQuestion) -> list[_Short]:
        found: list[_Short] = []
        for page in range(1, PERSONS_MAX + 1):
            answer = await self._ask(self._criteria(asked, page), _Found)
            found += answer.persons.personDataShortItem
            complete = len(found) >= min(answer.persons.pagination.count, PERSONS_MAX)
            if complete or not answer.persons.personDataShortItem:
                break
        return found[:PERSONS_MAX]

    async def _policy(self, person: _Short, day: date) -> schemas.InsuredPerson | None:
        got = await self._ask(self._search(person, day), _Got)
        policies = [one for one in got.pd.policy.policyItems if one.holds(day)]
        if not policies:
            return None
        policy = max(policies, key=lambda one: one.pcyDateB or date.min)
        places = [one for one in got.pd.attach.attachItems if (one.dateAttachB or day) <= day]
        place = max(places, key=lambda one: one.dateAttachB or date.min, default=_Attachment())
        enp = policy.enp or person.enp
        try:
            return msgspec.convert(
                {
                    "enp": enp,
                    "policy_kind": KINDS.get(policy.pcyType, 3),
                    "policy_number": policy.pcyNum or enp,
                    "insurer": policy.insurCode or None,
                    "begins": policy.pcyDateB,
                    "ends": policy.pcyDateT,
                    "attached_to": place.moCode or None,
                },
                schemas.InsuredPerson,
            )
        except msgspec.ValidationError:
            raise Retry(coded("connector.bad_reply", status=200)) from None

    async def _ask(self, request: xml.Element, shape: type[Shape]) -> Shape:
        """Return what is answered. Raises Retry or Reject."""
        token = await self._token.get()
        try:
            return await self._send(request, shape, token)
        except Unauthorised:
            self._token.drop(token)
            return await self._send(request, shape, await self._token.get())

    async def _send(self, request: xml.Element, shape: type[Shape], token: str) -> Shape:
        action = xml.local(request).removesuffix("Request")
        sent = {"authorization": f"Bearer {token}", "soapaction": f'"{action}"'}

        def read(call: soap.Call) -> Shape:
            if xml.local(call.body) != f"{action}Response":
                raise BadInput("Body", "is the answer to something else")
            if not len(call.body):
                raise BadInput("Body", "says nothing: not that there is nobody, either")
            answer = xml.read(call.body, shape)
            for error in answer.errors.errorItem:
                code = _NOT_A_CODE.sub("", error.code)[:40]
                note = coded("tfoms.dialect", code=code)
                raise Retry(note) if code in PASSING else Reject(note)
            return answer

        return await soap.ask(
            self._partner, "", request, new_id(), read, soap=soap.SOAP11, sent=sent
        )

    # -- the requests ---------------------------------------------------------------------------

    def _criteria(self, asked: schemas.InsuranceQuestion, page: int) -> xml.Element:
        m, c = self._m, self._c
        root = self._request("findPersonsByPersCriteriaRequest")
        wanted = etree.SubElement(root, f"{m}persCriteria")
        _put(wanted, f"{m}terrOkato", self._territory)
        if asked.family or asked.given or asked.middle:
            fio = etree.SubElement(wanted, f"{m}fio")
            _put(fio, f"{c}surname", asked.family)
            _put(fio, f"{c}firstName", asked.given)
            _put(fio, f"{c}patronymic", asked.middle)
        _put(wanted, f"{m}birthDayFrom", asked.birth_date)
        _put(wanted, f"{m}birthDayTo", asked.birth_date)
        if asked.document or asked.enp or asked.policy_number or asked.snils:
            self._numbers(etree.SubElement(wanted, f"{m}personSearchInfo"), asked)
        pages = etree.SubElement(root, f"{m}pagination")
        _put(pages, f"{c}pageNumber", page)
        _put(pages, f"{c}itemPerPage", PAGE)
        return root

    def _numbers(self, search: xml.Element, asked: schemas.InsuranceQuestion) -> None:
        m, c = self._m, self._c
        if asked.document:
            document = etree.SubElement(search, f"{m}dudl")
            _put(document, f"{c}dudlType", asked.document.type)
            _put(document, f"{c}dudlSer", asked.document.series)
            _put(document, f"{c}dudlNum", asked.document.number)
        if asked.enp or asked.policy_number:
            policy = etree.SubElement(search, f"{m}pcy")
            _put(policy, f"{c}enp", asked.enp)
            _put(policy, f"{c}pcyNum", asked.policy_number)
        if asked.snils:
            snils = etree.SubElement(search, f"{m}snilsDr")
            _put(snils, f"{m}snils", asked.snils)
            _put(snils, f"{m}birthDay", asked.birth_date)

    def _search(self, person: _Short, day: date) -> xml.Element:
        root = self._request("getPersonDataRequest")
        wanted = etree.SubElement(root, f"{self._m}personDataSearchParams")
        search = etree.SubElement(wanted, f"{self._m}personSearchInfo")
        if person.oip:
            _put(search, f"{self._m}oip", person.oip)
        else:
            _put(etree.SubElement(search, f"{self._m}pcy"), f"{self._c}enp", person.enp)
        _put(wanted, f"{self._m}dt", day)
        return root

    def _request(self, name: str) -> xml.Element:
        spaces = {"m": self._m[1:-1], "c": self._c[1:-1]}
        root = etree.Element(f"{self._m}{name}", nsmap=spaces)
        _put(root, f"{self._c}externalRequestId", new_id())
        return root


def _put(parent: xml.Element, name: str, value: object) -> None:
    if value in (None, ""):
        return
    try:
        etree.SubElement(parent, name).text = str(value)
    except ValueError:  # a character that XML cannot hold is in nobody's name
        raise Reject(coded("connector.bad_body")) from None


def _token(name: str, settings: FerzlSettings) -> Token:
    if (settings.token_file is None) == (settings.token is None):
        raise StartError(text("tfoms.no_token_source"))
    if settings.token is not None:
        return AskedToken(Partner(name, settings.token))
    if settings.token_file is not None:
        return FileToken(settings.token_file)
    raise StartError(text("tfoms.no_token_source"))

"""Writes the part of vSphere's WSDL that a datastore client needs; the simulator has none.

The list of operations is here.  The types are from the schemas in oslo.vmware, but only those that
the operations need: a client then reads 40 KB instead of 1.5 MB.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import oslo_vmware

_VIM = "urn:vim25"
_XSD = "http://www.w3.org/2001/XMLSchema"
_WSDL = "http://schemas.xmlsoap.org/wsdl/"
_SOAP = "http://schemas.xmlsoap.org/wsdl/soap/"

#: The parameters and the result of each operation.  XML Schema types have the prefix xsd:; the
#: types of lists end in *, those of optional values in ?.
_OPERATIONS = """
RetrieveServiceContent() -> ServiceContent
Login(userName xsd:string, password xsd:string, locale xsd:string?) -> UserSession
Logout()
AcquireGenericServiceTicket(spec SessionManagerServiceRequestSpec)
    -> SessionManagerGenericServiceTicket
FindByInventoryPath(inventoryPath xsd:string) -> ManagedObjectReference?
RetrievePropertiesEx(specSet PropertyFilterSpec*, options RetrieveOptions) -> RetrieveResult?
ContinueRetrievePropertiesEx(token xsd:string) -> RetrieveResult
CancelRetrievePropertiesEx(token xsd:string)
MakeDirectory(name xsd:string, datacenter ManagedObjectReference?,
    createParentDirectories xsd:boolean?)
DeleteDatastoreFile_Task(name xsd:string, datacenter ManagedObjectReference?)
    -> ManagedObjectReference
MoveDatastoreFile_Task(sourceName xsd:string, sourceDatacenter ManagedObjectReference?,
    destinationName xsd:string, destinationDatacenter ManagedObjectReference?, force xsd:boolean?)
    -> ManagedObjectReference
SearchDatastore_Task(datastorePath xsd:string, searchSpec HostDatastoreBrowserSearchSpec?)
    -> ManagedObjectReference
SessionIsActive(sessionID xsd:string, userName xsd:string) -> xsd:boolean
"""

#: Types that no operation names, but that are base classes or faults.
_FURTHER = """
DynamicData DynamicProperty TraversalSpec SelectionSpec MissingProperty LocalizedMethodFault
TaskInfo TaskReasonUser TaskReasonSystem TaskReasonAlarm TaskReasonSchedule DatastoreSummary
HostDatastoreBrowserSearchResults FileInfo FolderFileInfo VmDiskFileInfo IsoImageFileInfo
FloppyImageFileInfo VmConfigFileInfo VmLogFileInfo VmNvramFileInfo
SessionManagerHttpServiceRequestSpec ArrayOfManagedObjectReference ArrayOfString
FileNotFound FileAlreadyExists CannotDeleteFile CannotAccessFile CannotCreateFile FileLocked
FileFault NoDiskSpace InvalidDatastore InvalidDatastorePath InvalidArgument InvalidName InvalidLogin
NotAuthenticated NoPermission ManagedObjectNotFound NotFound ResourceInUse InvalidRequest
InvalidType MethodNotFound NotImplemented NotSupported InvalidProperty InvalidState TaskInProgress
SystemError RequestCanceled HostConfigFault HostCommunication AlreadyExists InvalidLocale
DuplicateName
"""

_OPERATION = re.compile(r"(\w+)\(([^)]*)\)(?:\s*-> ([\w:?*]+))?")


def write_wsdl(directory: Path) -> Path:
    """Write the files to ``directory`` and return the path of the main file."""
    found = [each.groups() for each in _OPERATION.finditer(_OPERATIONS)]
    operations = {
        name: ([tuple(each.split()) for each in given.split(",") if each.strip()], returned)
        for name, given, returned in found
    }
    (directory / "vim.wsdl").write_text(_definitions(operations))
    (directory / "vim-types.xsd").write_text(_types())
    start = directory / "vimService.wsdl"
    start.write_text(
        f'<definitions targetNamespace="urn:vim25Service" xmlns="{_WSDL}" xmlns:soap="{_SOAP}" '
        f'xmlns:vim="{_VIM}"><import location="vim.wsdl" namespace="{_VIM}"/>'
        '<service name="VimService"><port binding="vim:VimBinding" name="VimPort">'
        '<soap:address location="https://localhost/sdk"/></port></service></definitions>'
    )
    return start


def _element(name: str, kind: str) -> str:
    occurs = {"?": ' minOccurs="0"', "*": ' maxOccurs="unbounded"'}.get(kind[-1], "")
    kind = kind.rstrip("?*")
    prefix = "" if kind.startswith("xsd:") else "vim:"
    return f'<element name="{name}" type="{prefix}{kind}"{occurs}/>'


def _definitions(operations: dict[str, tuple[list[tuple[str, ...]], str | None]]) -> str:
    types, messages, ports, bindings = [], [], [], []
    for name, (parameters, returned) in operations.items():
        given = [("_this", "ManagedObjectReference"), *parameters]
        asked = "".join(_element(*each) for each in given)
        answer = f"<sequence>{_element('returnval', returned)}</sequence>" if returned else ""
        types.append(
            f'<complexType name="{name}RequestType"><sequence>{asked}</sequence></complexType>'
            f'<element name="{name}" type="vim:{name}RequestType"/><element name="{name}Response">'
            f"<complexType>{answer}</complexType></element>"
        )
        for which in ("", "Response"):
            messages.append(
                f'<message name="{name}{which}Message">'
                f'<part name="parameters" element="vim:{name}{which}"/></message>'
            )
        ports.append(
            f'<operation name="{name}"><input message="vim:{name}Message"/>'
            f'<output message="vim:{name}ResponseMessage"/></operation>'
        )
        bindings.append(
            f'<operation name="{name}"><soap:operation soapAction="urn:vim25/6.5" '
            'style="document"/><input><soap:body use="literal"/></input>'
            '<output><soap:body use="literal"/></output></operation>'
        )
    return "\n".join(
        [
            f'<definitions targetNamespace="{_VIM}" xmlns="{_WSDL}" xmlns:soap="{_SOAP}" '
            f'xmlns:vim="{_VIM}" xmlns:xsd="{_XSD}"><types>',
            f'<schema targetNamespace="{_VIM}" xmlns="{_XSD}" xmlns:vim="{_VIM}" '
            f'xmlns:xsd="{_XSD}" elementFormDefault="qualified">',
            '<include schemaLocation="vim-types.xsd"/>',
            *types,
            "</schema></types>",
            *messages,
            '<portType name="VimPortType">',
            *ports,
            '</portType><binding name="VimBinding" type="vim:VimPortType"><soap:binding '
            'style="document" transport="http://schemas.xmlsoap.org/soap/http"/>',
            *bindings,
            "</binding></definitions>",
        ]
    )


def _types() -> str:
    """Return the schema of all types that are needed, directly or indirectly."""
    directory = Path(oslo_vmware.__file__).parent / "wsdl" / "8.0"
    known = {}
    for name in ("core-types.xsd", "query-types.xsd", "vim-types.xsd"):
        for each in ElementTree.parse(directory / name).getroot():
            known[each.get("name")] = each
    reached: dict[str, ElementTree.Element] = {}
    waiting = set(re.findall(r"\w+", _OPERATIONS + _FURTHER)) & known.keys()
    while waiting:
        name = waiting.pop()
        reached[name] = known[name]
        waiting |= set(_references(known[name])) & known.keys() - reached.keys()
    ElementTree.register_namespace("", _XSD)
    schema = ElementTree.Element(
        f"{{{_XSD}}}schema",
        {
            "targetNamespace": _VIM,
            "elementFormDefault": "qualified",
            "xmlns:vim25": _VIM,
            "xmlns:xsd": _XSD,
        },
    )
    schema.extend(reached[name] for name in sorted(reached))
    return ElementTree.tostring(schema, "unicode")


def _references(kind: ElementTree.Element) -> Iterator[str]:
    for each in kind.iter():
        for attribute in ("base", "type"):
            yield each.get(attribute, "").rpartition(":")[2]

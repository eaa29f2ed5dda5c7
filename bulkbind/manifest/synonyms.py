"""What other programs call the fields, as whole headers; for suggestions, which a person decides.

No column is taken for such a name alone: `Owner` may be the owner of the device or of the budget.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_REMARK = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_LONGEST_NAME = 100

SYNONYMS = {
    "machine_code": """
        serial, serial number, serial numbers, serial no, serial nr, serial num, serial code, s/n,
        sn, serial id, device serial, device serial number, device serial no, hardware serial,
        hardware serial number, machine serial, machine serial number, machine id, machine number,
        system serial number, product serial number, equipment serial number, imei, imei number,
        imei no, mac, mac address, mac addr, mac id, wifi mac, wi-fi mac, wifi mac address,
        wi-fi mac address, wlan mac, wlan mac address, ethernet mac, ethernet mac address, dev eui,
        device eui, eui, eui64, asset tag, asset tags, asset id, asset number, asset no,
        asset code, inventory number, inventory no, inventory id, hardware id, udid,
        Seriennummer, Serien-Nr., Serien Nummer, Gerätenummer, Geräte-Nr., Geräteseriennummer,
        Geräte-ID, Geräte-Seriennummer, Inventarnummer, Inventar-Nr., MAC-Adresse, Maschinencode,
        numéro de série, n° de série, no de série, nº de série, num de série, numéro série,
        numéro d'inventaire, n° d'inventaire, adresse MAC, code machine,
        número de serie, n° de serie, nº de serie, n.º de serie, num. de serie, núm. de serie,
        número de inventario, nº de inventario, dirección MAC, código de máquina,
        序列号, 序列號, 设备序列号, 設備序列號, 产品序列号, 机器码, 機器碼, 设备编号, 设备号,
        资产编号, 资产标签, 串号, MAC地址
    """,
    "user_id": """
        user, user name, user login, user account, login, login id, login name, logon name,
        account, account id, account name, owner, owner id, owner name, device owner, owned by,
        assigned to, assigned user, assigned to user, assignee, checked out to, issued to,
        primary user, email, e-mail, email address, e-mail address, mail, user email, user e-mail,
        user email address, upn, user principal name, principal name, employee, employee id,
        employee number, custodian,
        Benutzer, Benutzername, Benutzer-ID, Benutzerkennung, Benutzerkonto, Nutzer, Nutzername,
        Anwender, Anmeldename, Besitzer, Eigentümer, Inhaber, Konto, Kontoname, zugewiesen an,
        zugeordnet zu, Mitarbeiter, Personalnummer, E-Mail-Adresse, Mailadresse,
        utilisateur, nom d'utilisateur, identifiant utilisateur, propriétaire, compte, attribué à,
        affecté à, assigné à, adresse e-mail, courriel,
        usuario, nombre de usuario, id de usuario, propietario, dueño, cuenta, asignado a,
        correo, correo electrónico, 用户, 用戶, 用户名, 用户ID, 用户编号, 账号, 帐号, 账户, 帐户,
        所有者, 使用人, 使用者, 责任人, 领用人, 归属人, 邮箱
    """,
    "device_name": """
        name, model, model name, device model, hostname, host name, host, computer name,
        marketing name, display name, friendly name, asset name, label, device label,
        Gerätename, Modell, Modellname, Gerätemodell, Bezeichnung, Gerätebezeichnung, Rechnername,
        Computername, Hostname, nom, nom de l'appareil, nom du périphérique, modèle, nom d'hôte,
        désignation, nombre, nombre del dispositivo, nombre del equipo, modelo, nombre de host,
        名称, 名稱, 设备名称, 设备名, 設備名稱, 型号, 型號, 设备型号, 机型, 主机名
    """,
    "device_os": """
        os, operating system, os name, os version, operating system version, os platform,
        platform, platform name, system software, Betriebssystem, Betriebssystemversion,
        Plattform, système d'exploitation, système, plateforme, sistema operativo, plataforma,
        操作系统, 作業系統, 操作系统版本, 系统版本, 平台
    """,
}
"""By field; as people write them, in English, German, French, Spanish and Chinese."""


def letters_of(name: str) -> str:
    """Return a name as compared: its letters and digits, without case, accents and remarks."""
    text = unicodedata.normalize("NFKC", name)
    text = unicodedata.normalize("NFKD", _REMARK.sub("", text) or text)
    return "".join(character for character in text if character.isalnum()).casefold()


NAMES = {
    " ".join(synonym.split()): field
    for field, text in SYNONYMS.items()
    for synonym in text.split(",")
}
"""The field of each."""
_FIELD_OF = {letters_of(synonym): field for synonym, field in NAMES.items()}


def meant(name: str) -> str | None:
    """Return the field that another program's name probably means; None if none."""
    return _FIELD_OF.get(letters_of(name)) if len(name) <= _LONGEST_NAME else None


def candidates(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of the names that probably mean a field, by field."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        if field := meant(name):
            found[field].append(position)
    return dict(found)

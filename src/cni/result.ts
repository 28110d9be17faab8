/** The result of ADD, as each version of the protocol writes it, and back. */
import { messageOf } from '../base/errors.ts';
import { type Cidr, canonicalIp, familyOf, type Ip, parseCidr } from '../base/ip.ts';
import {
  field,
  intOr,
  isObject,
  type JsonObject,
  listOr,
  objectOr,
  refuse,
  textOr,
  textsOr,
} from './json.ts';
import {
  atLeast,
  type CniDns,
  type CniInterface,
  type CniIp,
  type CniResult,
  type CniRoute,
  type CniVersion,
} from './types.ts';

const ROUTE_EXTRAS = ['mtu', 'advmss', 'priority', 'table', 'scope'] as const;

export function encodeResult(result: CniResult, version: CniVersion): JsonObject {
  const has11 = atLeast(version, '1.1.0');
  return {
    cniVersion: version,
    interfaces: result.interfaces.map(({ name, mac, mtu, sandbox, socketPath, pciID }) => ({
      name,
      ...(mac !== undefined && { mac }),
      ...(has11 && mtu !== undefined && { mtu }),
      ...(sandbox !== undefined && { sandbox }),
      ...(has11 && socketPath !== undefined && { socketPath }),
      ...(has11 && pciID !== undefined && { pciID }),
    })),
    ips: result.ips.map((ip) => ({
      // Until 0.4.0 each address says its family; 1.0.0 removed that.
      ...(!atLeast(version, '1.0.0') && { version: String(familyOf(ip.address)) }),
      ...(ip.interface !== undefined && { interface: ip.interface }),
      address: ip.address,
      ...(ip.gateway !== undefined && { gateway: ip.gateway }),
    })),
    routes: result.routes.map((route) => ({
      dst: route.dst,
      ...(route.gw !== undefined && { gw: route.gw }),
      ...(has11 &&
        Object.fromEntries(
          ROUTE_EXTRAS.filter((key) => route[key] !== undefined).map((key) => [key, route[key]]),
        )),
    })),
    dns: result.dns,
  };
}

/** `prevResult`, which is written in the configuration's own version. @throws CniError 7 */
export function decodeResult(value: unknown, key = 'prevResult'): CniResult | undefined {
  const object = objectOr(value, key);
  if (!object) return undefined;
  const interfaces = listOr(field(object, 'interfaces'), `${key}.interfaces`) ?? [];
  return {
    interfaces: interfaces.map((item, i) => decodeInterface(item, `${key}.interfaces[${i}]`)),
    ips: (listOr(field(object, 'ips'), `${key}.ips`) ?? []).map((item, i) =>
      decodeIp(item, `${key}.ips[${i}]`, interfaces.length),
    ),
    routes: (listOr(field(object, 'routes'), `${key}.routes`) ?? []).map((item, i) =>
      decodeRoute(item, `${key}.routes[${i}]`),
    ),
    dns: decodeDns(field(object, 'dns'), `${key}.dns`),
  };
}

export function decodeDns(value: unknown, key: string): CniDns {
  const object = objectOr(value, key) ?? {};
  const dns: CniDns = {};
  const nameservers = textsOr(field(object, 'nameservers'), `${key}.nameservers`);
  const domain = textOr(field(object, 'domain'), `${key}.domain`);
  const search = textsOr(field(object, 'search'), `${key}.search`);
  const options = textsOr(field(object, 'options'), `${key}.options`);
  if (nameservers) dns.nameservers = nameservers;
  if (domain !== undefined) dns.domain = domain;
  if (search) dns.search = search;
  if (options) dns.options = options;
  return dns;
}

function item(value: unknown, key: string): JsonObject {
  if (!isObject(value)) throw refuse(key, 'must be an object');
  return value;
}

function decodeInterface(value: unknown, key: string): CniInterface {
  const object = item(value, key);
  const name = textOr(field(object, 'name'), `${key}.name`);
  if (name === undefined) throw refuse(`${key}.name`, 'is missing');
  const result: CniInterface = { name };
  for (const text of ['mac', 'sandbox', 'socketPath', 'pciID'] as const) {
    const found = textOr(field(object, text), `${key}.${text}`);
    if (found) result[text] = found;
  }
  const mtu = intOr(field(object, 'mtu'), `${key}.mtu`);
  if (mtu) result.mtu = mtu;
  return result;
}

function decodeIp(value: unknown, key: string, interfaces: number): CniIp {
  const object = item(value, key);
  const ip: CniIp = { address: cidr(field(object, 'address'), `${key}.address`) };
  const gateway = address(field(object, 'gateway'), `${key}.gateway`);
  if (gateway !== undefined) ip.gateway = gateway;
  const index = intOr(field(object, 'interface'), `${key}.interface`, 0, Math.max(0, interfaces - 1));
  if (index !== undefined) {
    if (interfaces === 0) throw refuse(`${key}.interface`, 'names no interface of the result');
    ip.interface = index;
  }
  return ip;
}

function decodeRoute(value: unknown, key: string): CniRoute {
  const object = item(value, key);
  const route: CniRoute = { dst: cidr(field(object, 'dst'), `${key}.dst`) };
  const gw = address(field(object, 'gw'), `${key}.gw`);
  if (gw !== undefined) route.gw = gw;
  for (const name of ROUTE_EXTRAS) {
    const found = intOr(field(object, name), `${key}.${name}`);
    if (found !== undefined) route[name] = found;
  }
  return route;
}

function cidr(value: unknown, key: string): Cidr {
  const text = textOr(value, key);
  if (text === undefined) throw refuse(key, 'is missing');
  try {
    const { ip, length } = parseCidr(text);
    return `${ip}/${length}`;
  } catch (error) {
    throw refuse(key, messageOf(error));
  }
}

function address(value: unknown, key: string): Ip | undefined {
  const text = textOr(value, key);
  if (!text) return undefined;
  try {
    return canonicalIp(text);
  } catch (error) {
    throw refuse(key, messageOf(error));
  }
}

/** What an earlier plugin of the chain made, and what Weft added: interface numbers go on counting. */
export function mergeResults(previous: CniResult | undefined, own: CniResult): CniResult {
  if (!previous) return own;
  const shift = previous.interfaces.length;
  return {
    interfaces: [...previous.interfaces, ...own.interfaces],
    ips: [
      ...previous.ips,
      ...own.ips.map((ip) => (ip.interface === undefined ? ip : { ...ip, interface: ip.interface + shift })),
    ],
    routes: [...previous.routes, ...own.routes],
    dns: Object.keys(own.dns).length > 0 ? own.dns : previous.dns,
  };
}

/** Policy routing rules: RTM_NEWRULE, RTM_DELRULE (include/uapi/linux/fib_rules.h). */
import { WeftError } from '../../base/errors.ts';
import { type Cidr, formatIp, parseCidr, parseIp } from '../../base/ip.ts';
import { type Rule, WEFT_PROTOCOL } from '../../base/net-objects.ts';
import { malformed, NLM_F_CREATE, NLM_F_EXCL, NlReader, NlWriter } from '../netlink.ts';
import {
  AF_INET,
  AF_INET6,
  familyNumber,
  RT_TABLE_COMPAT,
  RT_TABLE_MAIN,
  RTM_DELRULE,
  RTM_GETRULE,
  RTM_NEWRULE,
} from './constants.ts';

const FRA_DST = 1;
const FRA_SRC = 2;
const FRA_IIFNAME = 3;
const FRA_GOTO = 4;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_OIFNAME = 17;
const FRA_PROTOCOL = 21;
const FIB_RULE_INVERT = 0x2;
const NO_SUPPRESS = 0xffffffff;
export const FIB_RULE_HDR = 12;

const actions = { lookup: 1, goto: 2, nop: 3, blackhole: 6, unreachable: 7, prohibit: 8 } as const;
const actionNames = new Map<number, string>(Object.entries(actions).map(([name, value]) => [value, name]));

/** An identical rule is EEXIST on add, ENOENT on delete when absent. */
export function encodeRule(op: 'add' | 'delete', rule: Rule): Uint8Array {
  const action = (actions as Record<string, number>)[rule.action ?? 'lookup'];
  if (action === undefined) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `rule ${rule.priority}: unknown action ${JSON.stringify(rule.action)}`,
    );
  }
  const prefix = (cidr: Cidr | undefined): ReturnType<typeof parseCidr> | undefined => {
    if (cidr === undefined) return undefined;
    const parsed = parseCidr(cidr);
    if (parsed.family !== rule.family) {
      throw new WeftError('WEFT_BAD_CONFIG', `rule ${rule.priority}: ${cidr} is not IPv${rule.family}`);
    }
    return parsed;
  };
  const dst = prefix(rule.dst);
  const src = prefix(rule.src);
  const table = action === actions.lookup ? (rule.table ?? RT_TABLE_MAIN) : 0;
  const w =
    op === 'add' ? new NlWriter(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) : new NlWriter(RTM_DELRULE, 0);
  w.u8(familyNumber(rule.family))
    .u8(dst?.length ?? 0)
    .u8(src?.length ?? 0)
    .u8(0);
  w.u8(table < 256 ? table : RT_TABLE_COMPAT)
    .u8(0)
    .u8(0)
    .u8(action);
  w.u32(rule.invert ? FIB_RULE_INVERT : 0);
  w.attrU32(FRA_PRIORITY, rule.priority);
  if (action === actions.lookup) w.attrU32(FRA_TABLE, table);
  if (dst && dst.length > 0) w.attr(FRA_DST, parseIp(dst.network));
  if (src && src.length > 0) w.attr(FRA_SRC, parseIp(src.network));
  if (rule.iif !== undefined) w.attrString(FRA_IIFNAME, rule.iif);
  if (rule.oif !== undefined) w.attrString(FRA_OIFNAME, rule.oif);
  if (rule.goto !== undefined) w.attrU32(FRA_GOTO, rule.goto);
  if (rule.fwmark !== undefined) w.attrU32(FRA_FWMARK, rule.fwmark);
  if (rule.fwmask !== undefined) w.attrU32(FRA_FWMASK, rule.fwmask);
  if (rule.suppressPrefixLength !== undefined) w.attrU32(FRA_SUPPRESS_PREFIXLEN, rule.suppressPrefixLength);
  w.attrU8(FRA_PROTOCOL, rule.protocol ?? WEFT_PROTOCOL);
  return w.finish();
}

export function encodeRuleDump(family?: 4 | 6): Uint8Array {
  return new NlWriter(RTM_GETRULE, 0)
    .u8(familyNumber(family))
    .raw(new Uint8Array(FIB_RULE_HDR - 1))
    .finish();
}

/** Undefined for other families (multicast routing has rules too). @throws WEFT_NETLINK_MALFORMED */
export function decodeRule(payload: Uint8Array): Rule | undefined {
  const r = new NlReader(payload);
  const familyValue = r.u8(0);
  if (familyValue !== AF_INET && familyValue !== AF_INET6) return undefined;
  const family = familyValue === AF_INET ? 4 : 6;
  const a = r.attributes(FIB_RULE_HDR);
  const prefix = (type: number, length: number): Cidr | undefined => {
    const bytes = a.bytes(type);
    if (!bytes) return undefined;
    if (bytes.length !== (family === 4 ? 4 : 16) || length > bytes.length * 8) {
      throw malformed(`prefix of ${bytes.length} bytes and length ${length} in a rule`, payload);
    }
    return `${formatIp(bytes)}/${length}`;
  };
  const rule: Rule = { kind: 'rule', family, priority: a.u32(FRA_PRIORITY) ?? 0 };
  const action = r.u8(7);
  rule.action = actionNames.get(action) ?? String(action);
  if (action === actions.lookup) rule.table = a.u32(FRA_TABLE) ?? r.u8(4);
  const dst = prefix(FRA_DST, r.u8(1));
  if (dst !== undefined) rule.dst = dst;
  const src = prefix(FRA_SRC, r.u8(2));
  if (src !== undefined) rule.src = src;
  const iif = a.string(FRA_IIFNAME);
  if (iif !== undefined) rule.iif = iif;
  const oif = a.string(FRA_OIFNAME);
  if (oif !== undefined) rule.oif = oif;
  const target = a.u32(FRA_GOTO);
  if (target !== undefined && action === actions.goto) rule.goto = target;
  const mark = a.u32(FRA_FWMARK);
  const mask = a.u32(FRA_FWMASK);
  // The kernel reports a mask with every rule that has a mark; the full one goes without saying.
  if (mark !== undefined || (mask !== undefined && mask !== 0)) rule.fwmark = mark ?? 0;
  if (mask !== undefined && rule.fwmark !== undefined && mask !== 0xffffffff) rule.fwmask = mask;
  if (r.u32(8) & FIB_RULE_INVERT) rule.invert = true;
  const suppress = a.u32(FRA_SUPPRESS_PREFIXLEN);
  if (suppress !== undefined && suppress !== NO_SUPPRESS) rule.suppressPrefixLength = suppress;
  const protocol = a.u8(FRA_PROTOCOL);
  if (protocol) rule.protocol = protocol;
  return rule;
}

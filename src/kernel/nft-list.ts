/**
 * Listings by libnftables, as JSON.
 *
 * nft 1.0.6 (Debian 12) frees the text of a table's flags before it prints it (src/json.c, table_flags_json): what comes out is
 * broken, and what the process does next is anybody's guess. So tables are looked at by netlink first, and one with flags is
 * listed in parts, of which the table itself is ours.
 */
import { WeftError } from '../base/errors.ts';
import type { NsPath } from '../base/net-objects.ts';
import { decodeTable, encodeTableDump, type NftTable } from '../wire/nf-tables.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink-socket.ts';
import { withFreshNetns, withNetns } from './netns.ts';
import { applyRuleset, nftRejected, runNft } from './nft.ts';
import type { NftListing } from './types.ts';

type Entry = NftListing['nftables'][number];

/** What may be asked for: a listing must not be able to change anything. */
const WHAT = /^(ruleset|tables|chains|sets|maps|counters|table|chain|set|map|counter)( [A-Za-z0-9_./-]+)*$/;

/**
 * `nft -j list <what>`; undefined when there is no such table, chain or set.
 *
 * @throws WEFT_NFT_REJECTED, WEFT_NETNS_NOT_FOUND, WEFT_KERNEL_FEATURE_MISSING without libnftables
 */
export function listRuleset(ns: NsPath, what: string): NftListing | undefined {
  if (!WHAT.test(what)) throw new WeftError('WEFT_BAD_CONFIG', `nft cannot list ${JSON.stringify(what)}`);
  return withNetns(ns, () => listHere(ns, what));
}

/**
 * What nftables makes of a ruleset: applied in a namespace that exists only for this call, and listed there. Two rulesets are
 * equal when they are rendered alike by the same library, whatever its version prints.
 *
 * @throws WEFT_NFT_REJECTED, WEFT_KERNEL_FEATURE_MISSING without libnftables
 */
export function renderRuleset(ruleset: string, what: string): NftListing {
  return withFreshNetns(() => {
    applyRuleset('', ruleset);
    return listRuleset('', what) ?? { nftables: [] };
  });
}

function listHere(ns: NsPath, what: string): NftListing | undefined {
  const [kind, family, name] = what.split(' ');
  if (kind !== 'ruleset' && kind !== 'tables' && kind !== 'table') return ask(ns, what);
  using socket = new NetlinkSocket(NETLINK_NETFILTER);
  const all = socket.dump(encodeTableDump()).map(decodeTable);
  const wanted = kind === 'table' ? all.filter((t) => t.family === family && t.name === name) : all;
  if (wanted.every(({ flags }) => flags.length === 0)) return ask(ns, what);
  return {
    nftables: wanted.flatMap((table) => [
      { table: { family: table.family, name: table.name, handle: table.handle, flags: table.flags } },
      ...(kind === 'tables' ? [] : contents(ns, table)),
    ]),
  };
}

/** All that is in a table, as `list table` has it: rules after all chains. */
function contents(ns: NsPath, { family, name }: NftTable): Entry[] {
  // There is no `list maps table …`, and none for chains.
  const parts = (kind: 'set' | 'map' | 'counter' | 'chain'): Entry[] =>
    (
      ask(ns, kind === 'set' || kind === 'counter' ? `${kind}s table ${family} ${name}` : `${kind}s`)
        ?.nftables ?? []
    ).filter((entry) => {
      const object = entry[kind] as { family: string; table: string } | undefined;
      return object?.family === family && object.table === name;
    });
  const chains = parts('chain');
  const rules = chains.flatMap(({ chain }) => {
    const listed = ask(ns, `chain ${family} ${name} ${(chain as { name: string }).name}`);
    return (listed?.nftables ?? []).filter((entry) => 'rule' in entry);
  });
  return [...parts('set'), ...parts('map'), ...parts('counter'), ...chains, ...rules];
}

function ask(ns: NsPath, what: string): NftListing | undefined {
  const { ok, output, error } = runNft(`list ${what}`);
  if (!ok) {
    if (/^Error: No such file or directory/m.test(error)) return undefined;
    throw nftRejected(`list ${what}`, ns, error);
  }
  return output === '' ? { nftables: [] } : parseListing(output);
}

function parseListing(text: string): NftListing {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new WeftError('WEFT_NFT_REJECTED', 'libnftables gave a listing that is not JSON', { cause: error });
  }
  if (typeof value === 'object' && value !== null && 'nftables' in value && Array.isArray(value.nftables)) {
    return { nftables: value.nftables };
  }
  throw new WeftError('WEFT_NFT_REJECTED', 'libnftables gave a listing without objects');
}

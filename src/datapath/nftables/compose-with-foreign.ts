/**
 * Other firewalls on the machine. In netfilter a `drop` is final whatever other tables accept, so a firewall that drops what
 * it does not know on forward would cut pods off. Where it has a chain that is meant for its user (Docker's DOCKER-USER,
 * ufw's user-forward), two commented rules there let pods' links through, at the end of what the user wrote. Everywhere else
 * nothing is touched, and the answer says what to allow.
 *
 * The rules are in the form that `iptables -i weft+` has: iptables must go on being able to read its own table.
 */
import { isWeftError, messageOf } from '../../base/errors.ts';
import type { Cidr } from '../../base/ip.ts';
import type { NsPath } from '../../base/net-objects.ts';
import type { Kernel, NftListing } from '../../kernel/types.ts';

/** Begins the comment of every rule that is ours in a foreign chain. */
const MARK = 'weft:';
const RULES = [
  { match: 'iifname "weft*"', comment: `${MARK} from pods and the fabric` },
  { match: 'oifname "weft*"', comment: `${MARK} to pods and the fabric` },
] as const;
/** In the `filter` tables of iptables, in order of preference. */
const USER_CHAINS = ['DOCKER-USER', 'ufw-user-forward', 'ufw6-user-forward'];

export interface ForeignOutcome {
  /** Rules added by this call: `ip filter DOCKER-USER: iifname "weft*" accept`. */
  added: string[];
  /** What stands in the way and cannot be helped from here, and what to do: one per firewall. */
  messages: string[];
}

interface Chain {
  family: string;
  table: string;
  name: string;
  hook?: string;
  policy?: string;
}

type Fields = Record<string, unknown>;

function objects(listing: NftListing | undefined, kind: string): Fields[] {
  return (listing?.nftables ?? []).flatMap((entry) => (entry[kind] ? [entry[kind] as Fields] : []));
}

async function listChains(kernel: Kernel, ns: NsPath): Promise<Chain[]> {
  return objects(await kernel.nftList(ns, 'chains'), 'chain') as unknown as Chain[];
}

/**
 * Let pods pass foreign firewalls, or say why they will not. Idempotent; for IPv4 and IPv6. `podCIDRs` are for the message.
 *
 * @throws WEFT_NFT_REJECTED, WEFT_KERNEL_FEATURE_MISSING
 */
export async function composeWithForeign(
  kernel: Kernel,
  ns: NsPath,
  podCIDRs: readonly Cidr[] = [],
): Promise<ForeignOutcome> {
  const chains = await listChains(kernel, ns);
  const outcome: ForeignOutcome = { added: [], messages: [] };
  for (const chain of chains) {
    if (chain.hook !== 'forward' || chain.policy !== 'drop') continue;
    if (!['ip', 'ip6', 'inet'].includes(chain.family) || chain.table.startsWith('weft')) continue;
    const user = chain.name === 'FORWARD' && chain.table === 'filter' && findUserChain(chains, chain);
    try {
      if (user) outcome.added.push(...(await ensureRules(kernel, ns, user)));
      else if (!(await lets(kernel, ns, chain))) outcome.messages.push(advice(chain));
    } catch (error) {
      // A firewall may reload while we look at it.
      if (!isWeftError(error, 'WEFT_NFT_REJECTED')) throw error;
      outcome.messages.push(`${describe(user || chain)} could not be read or changed: ${messageOf(error)}`);
    }
  }
  if (chains.some(({ family, table }) => family === 'inet' && table === 'firewalld')) {
    const message = await firewalldAdvice(kernel, ns, podCIDRs);
    if (message !== undefined) outcome.messages.push(message);
  }
  return outcome;
}

/** Take our rules out of foreign chains again. @returns how many there were */
export async function withdrawFromForeign(kernel: Kernel, ns: NsPath): Promise<number> {
  let removed = 0;
  for (const chain of await listChains(kernel, ns)) {
    if (chain.table !== 'filter' || !USER_CHAINS.includes(chain.name)) continue;
    const { family, table, name } = chain;
    const own = (await listRules(kernel, ns, chain)).filter(({ comment }) =>
      String(comment).startsWith(MARK),
    );
    const commands = own.map(({ handle }) => `delete rule ${family} ${table} ${name} handle ${handle}\n`);
    if (commands.length > 0) await kernel.nftApply(ns, commands.join(''));
    removed += own.length;
  }
  return removed;
}

function findUserChain(chains: Chain[], { family, table }: Chain): Chain | undefined {
  for (const name of USER_CHAINS) {
    const found = chains.find((c) => c.family === family && c.table === table && c.name === name);
    if (found) return found;
  }
  return undefined;
}

async function listRules(kernel: Kernel, ns: NsPath, { family, table, name }: Chain): Promise<Fields[]> {
  return objects(await kernel.nftList(ns, `chain ${family} ${table} ${name}`), 'rule');
}

async function ensureRules(kernel: Kernel, ns: NsPath, user: Chain): Promise<string[]> {
  const rules = await listRules(kernel, ns, user);
  const missing = RULES.filter(({ comment }) => !rules.some((rule) => rule.comment === comment));
  if (missing.length === 0) return [];
  const where = `${user.family} ${user.table} ${user.name}`;
  // Docker ends its user's chain with RETURN, behind which nothing is reached.
  const last = rules.at(-1);
  const verb = last && isReturn(last) ? `insert rule ${where} handle ${last.handle}` : `add rule ${where}`;
  const commands = missing.map(
    ({ match, comment }) => `${verb} ${match} counter accept comment "${comment}"\n`,
  );
  await kernel.nftApply(ns, commands.join(''));
  return missing.map(({ match }) => `${where}: ${match} accept`);
}

/** A `return` without any condition. */
function isReturn({ expr }: Fields): boolean {
  const kinds = Array.isArray(expr) ? expr.flatMap((e: Fields) => Object.keys(e)) : [];
  return kinds.at(-1) === 'return' && kinds.slice(0, -1).every((kind) => kind === 'counter');
}

/** Whether somebody has allowed both directions of pods' links in this chain already. */
async function lets(kernel: Kernel, ns: NsPath, chain: Chain): Promise<boolean> {
  const accepts = (await listRules(kernel, ns, chain))
    .map((rule) => JSON.stringify(rule.expr))
    .filter((text) => text.includes('"accept"'));
  const names = (key: string, text: string): boolean =>
    text.includes(`"${key}name"`)
      ? text.includes('"weft*"')
      : text.includes(`"${key}group"`) && text.includes('22496');
  return ['iif', 'oif'].every((key) => accepts.some((text) => names(key, text)));
}

function describe({ family, table, name }: Chain): string {
  return `chain ${family} ${table} ${name}`;
}

function advice(chain: Chain): string {
  const { family, table, name } = chain;
  const iptables = name === 'FORWARD' && table === 'filter' && family !== 'inet';
  const program = family === 'ip6' ? 'ip6tables' : 'iptables';
  const command = iptables
    ? `${program} -A FORWARD -i weft+ -j ACCEPT; ${program} -A FORWARD -o weft+ -j ACCEPT`
    : RULES.map(({ match }) => `nft 'add rule ${family} ${table} ${name} ${match} accept'`).join('; ');
  return (
    `${describe(chain)} drops what it does not know, pods' packets too, and is not Weft's to change; ` +
    `allow them there: ${command}`
  );
}

/** firewalld rejects at the end of its own chains, and writes them anew on every reload: only its own command can help. */
async function firewalldAdvice(
  kernel: Kernel,
  ns: NsPath,
  podCIDRs: readonly Cidr[],
): Promise<string | undefined> {
  const text = JSON.stringify((await kernel.nftList(ns, 'table inet firewalld'))?.nftables ?? []);
  const known = (cidr: Cidr): boolean => text.includes(`"${cidr.slice(0, cidr.indexOf('/'))}"`);
  if (podCIDRs.length > 0 && podCIDRs.every(known)) return undefined;
  const sources = podCIDRs.length > 0 ? podCIDRs : ['<pod CIDR>'];
  const adds = sources.map((cidr) => `--add-source=${cidr}`).join(' ');
  return `firewalld rejects pods' packets; trust them: firewall-cmd --permanent --zone=trusted ${adds} && firewall-cmd --reload`;
}

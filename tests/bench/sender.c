/* Sends UDP over IPv4 through several gateways in turn, as fast as one core can, and says how long each took.
 *
 *     sender FLOWS PORTS FIRST BURST ROUNDS HARDWARE DESCRIPTOR...
 *
 * FLOWS is a file of 12 bytes a flow: source, destination, source port, destination port, in network order. Packet n
 * is of flow n modulo their number, and each time all have been sent the source port is the next of PORTS. FIRST is
 * the first n. HARDWARE is the Ethernet address of the next hop. Each DESCRIPTOR is a packet socket, bound, past the
 * queueing discipline (packet(7), PACKET_QDISC_BYPASS). A round sends the same BURST of packets by each of them, from
 * the first to the last or the other way round by turns, and prints the nanoseconds that each burst took.
 *
 * Over a veth without RPS all of a packet's way, to where it is dropped behind the gateway, is walked within the
 * system call: the time of a burst is that of sending, forwarding and receiving on one core. Alternating every
 * millisecond lets all gateways meet the same clock rate, the same neighbours in the cache, the same interruptions.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define PAYLOAD 64
#define AT_ONCE 64
#define MOST_GATEWAYS 8

struct flow {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
};

struct frame {
    struct ether_header ethernet;
    struct iphdr ip;
    struct udphdr udp;
    char payload[PAYLOAD];
} __attribute__((packed));

struct traffic {
    struct flow *flows;
    struct frame *frames;
    long long count, ports;
};

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static uint16_t checksum_of(const void *header, size_t length)
{
    const uint8_t *octets = header;
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i += 2)
        sum += (uint32_t)octets[i] << 8 | octets[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

/* The UDP checksum is 0: none (RFC 768). */
static void write_frame(struct frame *frame, const struct flow *flow, const struct ether_addr *hop)
{
    memset(frame, 0, sizeof *frame);
    memcpy(frame->ethernet.ether_dhost, hop, ETH_ALEN);
    frame->ethernet.ether_shost[0] = 2;
    frame->ethernet.ether_type = htons(ETHERTYPE_IP);
    frame->ip.version = 4;
    frame->ip.ihl = 5;
    frame->ip.tot_len = htons(sizeof *frame - sizeof frame->ethernet);
    frame->ip.ttl = 64;
    frame->ip.protocol = IPPROTO_UDP;
    frame->ip.saddr = flow->source;
    frame->ip.daddr = flow->destination;
    frame->ip.check = checksum_of(&frame->ip, sizeof frame->ip);
    frame->udp.uh_dport = flow->destination_port;
    frame->udp.uh_ulen = htons(sizeof frame->udp + PAYLOAD);
}

static struct traffic read_traffic(const char *path, long long ports, const struct ether_addr *hop)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        err(1, "%s", path);
    size_t count = (size_t)ftell(file) / sizeof(struct flow);
    rewind(file);
    struct traffic traffic = {calloc(count, sizeof(struct flow)), calloc(count, sizeof(struct frame)),
                              (long long)count, ports};
    if (count == 0 || traffic.flows == NULL || traffic.frames == NULL)
        errx(1, "%s: no flow, or no memory", path);
    if (fread(traffic.flows, sizeof(struct flow), count, file) != count)
        errx(1, "%s: cut short", path);
    fclose(file);
    for (size_t i = 0; i < count; i++)
        write_frame(&traffic.frames[i], &traffic.flows[i], hop);
    return traffic;
}

static void send_burst(int descriptor, const struct traffic *traffic, long long first, long long burst)
{
    struct iovec parts[AT_ONCE];
    struct mmsghdr messages[AT_ONCE];
    memset(messages, 0, sizeof messages);
    for (long long sent = 0; sent < burst;) {
        unsigned size = burst - sent < AT_ONCE ? (unsigned)(burst - sent) : AT_ONCE;
        for (unsigned i = 0; i < size; i++) {
            long long number = first + sent + i, which = number % traffic->count;
            struct frame *frame = &traffic->frames[which];
            uint16_t port = ntohs(traffic->flows[which].source_port);
            frame->udp.uh_sport = htons((uint16_t)(port + number / traffic->count % traffic->ports));
            parts[i] = (struct iovec){frame, sizeof *frame};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int taken = sendmmsg(descriptor, messages, size, 0);
        if (taken < 0 && errno != ENOBUFS) /* the backlog behind the veth is full: tried again */
            err(1, "sendmmsg");
        sent += taken > 0 ? taken : 0;
    }
}

int main(int count, char **words)
{
    const int gateways = count - 7;
    if (gateways < 1 || gateways > MOST_GATEWAYS)
        errx(2, "usage: sender FLOWS PORTS FIRST BURST ROUNDS HARDWARE DESCRIPTOR...");
    const struct ether_addr *hop = ether_aton(words[6]);
    if (hop == NULL)
        errx(2, "%s is no Ethernet address", words[6]);
    const long long first = atoll(words[3]), burst = atoll(words[4]), rounds = atoll(words[5]);
    struct traffic traffic = read_traffic(words[1], atoll(words[2]), hop);
    for (long long round = 0; round < rounds; round++) {
        long long took_ns[MOST_GATEWAYS];
        for (int turn = 0; turn < gateways; turn++) {
            int which = round % 2 ? gateways - 1 - turn : turn;
            long long began = now_ns();
            send_burst(atoi(words[7 + which]), &traffic, first + round * burst, burst);
            took_ns[which] = now_ns() - began;
        }
        for (int which = 0; which < gateways; which++)
            printf("%lld%c", took_ns[which], which + 1 < gateways ? ' ' : '\n');
    }
    return 0;
}

/* The test guest's first instructions, its interrupt handlers, and the header that makes it a bzImage.
 *
 * Entered in long mode by the 64-bit boot protocol. Sets up memory (the first 4 GiB as they are, open to ring 3), segments,
 * interrupts and the local APIC, and goes to ring 3, which may use all ports, where main() does the rest. What runs in ring 0 is
 * kept to a few plain instructions: some KVMs emulate them.
 *
 *     ud2 in ring 3, %eax = interrupts seen     sleeps until there have been more
 *     any other exception                       says so on COM1 and powers off
 */
	.section .setup, "a"
	.org 0x1f1
	.byte 1                        # setup_sects
	.org 0x1fe
	.word 0xaa55
	.byte 0xeb, 0x6e
	.ascii "HdrS"
	.word 0x020c                   # version
	.org 0x211
	.byte 1                        # loadflags: LOADED_HIGH
	.org 0x22c
	.long 0x7fffffff               # initrd_addr_max
	.long 0x1000                   # kernel_alignment
	.byte 0, 12
	.word 1                        # xloadflags: KERNEL_64
	.org 0x258
	.quad 0x100000                 # pref_address
	.long 0x400000                 # init_size
	.org 0x400

	.section .head, "ax"
	.org 0x200                     # the 64-bit entry
	.globl _start
_start:
	movq %rsi, boot_params(%rip)
	leaq ring0_stack_end(%rip), %rsp

	# pages of 2 MiB: present, writable, user
	leaq pd(%rip), %rdi
	movq $0x87, %rax
	movl $2048, %ecx
1:	movq %rax, (%rdi)
	addq $0x200000, %rax
	addq $8, %rdi
	decl %ecx
	jnz 1b
	leaq pd(%rip), %rax
	orq $7, %rax
	leaq pdpt(%rip), %rdi
	movl $4, %ecx
2:	movq %rax, (%rdi)
	addq $4096, %rax
	addq $8, %rdi
	decl %ecx
	jnz 2b
	leaq pdpt(%rip), %rax
	orq $7, %rax
	movq %rax, pml4(%rip)
	leaq pml4(%rip), %rax
	movq %rax, %cr3

	# SSE for ring 3
	movq %cr0, %rax
	andq $~4, %rax
	orq $2, %rax
	movq %rax, %cr0
	movq %cr4, %rax
	orq $0x600, %rax
	movq %rax, %cr4

	# segments
	leaq ring0_stack_end(%rip), %rax
	movq %rax, tss + 4(%rip)
	movw $104, tss + 102(%rip)     # the map of ports that ring 3 may use: all
	movb $0xff, tss + 104 + 8192(%rip)
	leaq tss(%rip), %rax
	movw %ax, gdt + 0x28 + 2(%rip)
	shrq $16, %rax
	movb %al, gdt + 0x28 + 4(%rip)
	movb %ah, gdt + 0x28 + 7(%rip)
	leaq gdt(%rip), %rax
	movq %rax, gdt_pointer + 2(%rip)
	lgdt gdt_pointer(%rip)
	pushq $0x08
	leaq 3f(%rip), %rax
	pushq %rax
	lretq
3:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x28, %eax
	ltr %ax

	# exceptions to trap, but for ud2; interrupts of the disk
	leaq idt(%rip), %rdi
	movl $32, %ecx
	leaq trap(%rip), %rax
4:	call set_gate
	decl %ecx
	jnz 4b
	leaq idt + 6 * 16(%rip), %rdi
	leaq sleep(%rip), %rax
	call set_gate
	leaq idt + 0x40 * 16(%rip), %rdi
	leaq on_ring(%rip), %rax
	call set_gate
	leaq on_config(%rip), %rax
	call set_gate
	leaq idt + 0xff * 16(%rip), %rdi
	leaq on_spurious(%rip), %rax
	call set_gate
	leaq idt(%rip), %rax
	movq %rax, idt_pointer + 2(%rip)
	lidt idt_pointer(%rip)
	movb $0xff, %al                # no old interrupts
	outb %al, $0x21
	outb %al, $0xa1
	movl $0xfee00000, %eax
	movl $0x1ff, 0xf0(%rax)        # local APIC on

	# to ring 3, with interrupts on
	pushq $0x1b
	leaq ring3_stack_end(%rip), %rax
	subq $8, %rax
	pushq %rax
	pushq $0x202
	pushq $0x23
	leaq main(%rip), %rax
	pushq %rax
	movq boot_params(%rip), %rdi
	iretq

# An interrupt gate at %rdi, which moves on, to %rax.
set_gate:
	movq %rax, %rdx
	movw %dx, (%rdi)
	movw $0x08, 2(%rdi)
	movw $0xee00, 4(%rdi)
	shrq $16, %rdx
	movw %dx, 6(%rdi)
	shrq $16, %rdx
	movl %edx, 8(%rdi)
	addq $16, %rdi
	ret

on_ring:
	pushq %rax
	movl irqs(%rip), %eax
	incl %eax
	movl %eax, irqs(%rip)
	jmp end_of_interrupt
on_config:
	pushq %rax
	movl config_irqs(%rip), %eax
	incl %eax
	movl %eax, config_irqs(%rip)
end_of_interrupt:
	movl $0xfee00000, %eax
	movl $0, 0xb0(%rax)
	popq %rax
on_spurious:
	iretq

# Between the check and hlt no interrupt comes in: sti takes effect one instruction later.
sleep:
	addq $2, (%rsp)
	cmpl %eax, irqs(%rip)
	jne 1f
	sti
	hlt
1:	iretq

trap:
	movl $0x3f8, %edx
	movl $'T', %eax
	outb %al, %dx
	movl $'\n', %eax
	outb %al, %dx
	movl $0x600, %edx
	movl $0x34, %eax
	outb %al, %dx
1:	jmp 1b

	.data
	.balign 16
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
	.quad 0x0000890000002068, 0
gdt_pointer:
	.word . - gdt - 1
	.quad 0
idt_pointer:
	.word 256 * 16 - 1
	.quad 0
	.globl irqs, config_irqs
	.balign 64
irqs:	.long 0
config_irqs:
	.long 0
boot_params:
	.quad 0

	.bss
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
idt:	.skip 4096
tss:	.skip 104 + 8192 + 1
	.balign 16
	.skip 4096
ring0_stack_end:
	.skip 16384
ring3_stack_end:
	.section .note.GNU-stack, "", @progbits

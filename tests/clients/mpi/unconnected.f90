! Calls of a client that was never connected.
program null_client
  use penstock
  use, intrinsic :: iso_c_binding
  implicit none
  type(penstock_client) :: server
  integer :: status
  real(c_double) :: u(3) = 0
  print *, server%simulation(), server%is_validation(), server%wanted(1)
  call server%send(1, 0, 0d0, u, status=status); print *, status
  call server%step_sent(status); print *, status
  call server%announce([penstock_field("u", PENSTOCK_FLOAT64, [3])], status); print *, status
  call server%indices(1, [1_c_int64_t], status); print *, status
  call server%finish(status); print *, status
  call server%send(1, 0, 0d0, 1d0, status=status); print *, status
  call server%flush(status); print *, status
  call server%fail("x")
  call server%close()
  print *, server%attempt()
  print *, server%error_text()
end program

! The same in fixed form and without MPI. Usage: melissa_fixed A STEPS POINTS
      program melissa
      use, intrinsic :: iso_c_binding
      implicit none
      include 'melissa_api.f'
      character*64 argument
      double precision a
      double precision, allocatable :: temperature(:), pressure(:)
      integer steps, points, step, i
      call get_command_argument(1, argument)
      read (argument, *) a
      call get_command_argument(2, argument)
      read (argument, *) steps
      call get_command_argument(3, argument)
      read (argument, *) points
      allocate (temperature(points), pressure(2 * points))
      call melissa_init_no_mpi('temperature'//c_null_char, points)
      call melissa_init_no_mpi('pressure'//c_null_char, 2 * points)
      do step = 0, steps - 1
        do i = 1, points
          temperature(i) = a + step + (i - 1) / 1024d0
        end do
        do i = 1, 2 * points
          pressure(i) = a - step - (i - 1) / 1024d0
        end do
        call melissa_send_no_mpi('temperature'//c_null_char,
     &   temperature)
        call melissa_send_no_mpi('pressure'//c_null_char, pressure)
      end do
      call melissa_finalize()
      deallocate (temperature, pressure)
      end program melissa
